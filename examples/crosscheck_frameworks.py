"""Do the installed frameworks agree on LeNet-5's MPO-Net?  Forward, loss, gradients and 20 steps of training."""

from mponet.crosscheck import crosscheck
from mponet.models import build

report = crosscheck(build("lenet5", "mpo"), dtype="float64")
print(report)
assert report.ok
