"""Compare the installed frameworks on LeNet-5 mpo: outputs, loss, gradients, 20 training steps."""

from mponet.crosscheck import crosscheck
from mponet.models import build

report = crosscheck(build("lenet5", "mpo"), dtype="float64")
print(report)
assert report.ok
