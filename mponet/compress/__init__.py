"""Compression of networks that exist: what to replace, by which operators, within a budget.

Framework-free.
"""

from mponet.compress.adapter import CompressAdapter as CompressAdapter
from mponet.compress.calibrate import Calibration as Calibration
from mponet.compress.calibrate import InputSums as InputSums
from mponet.compress.config import CompressConfig as CompressConfig
from mponet.compress.config import Override as Override
from mponet.compress.execution import fitted as fitted
from mponet.compress.fitting import FittedLayer as FittedLayer
from mponet.compress.healing.config import HealConfig as HealConfig
from mponet.compress.healing.report import HealReport as HealReport
from mponet.compress.layer_plan import LayerPlan as LayerPlan
from mponet.compress.pipeline import make_plan as make_plan
from mponet.compress.plan import CompressionPlan as CompressionPlan
from mponet.compress.report import Measurement as Measurement
from mponet.compress.report import Report as Report
from mponet.compress.report import Sample as Sample
from mponet.compress.structures import Layout as Layout
from mponet.compress.target import Target as Target
