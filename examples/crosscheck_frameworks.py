"""Do the installed frameworks agree?  Forward, loss, gradients and 20 steps of LeNet-5's MPO-Net, each in its own process."""

from mponet.crosscheck import crosscheck
from mponet.models import build

report = crosscheck(build("lenet5", "mpo"), dtype="float64")
print(report)
assert report.ok
