"""Healing: a compressed network is trained to do what the original does.  Framework-free."""

from mponet.compress.healing.adapter import HealAdapter as HealAdapter
from mponet.compress.healing.adapter import OperatorParameters as OperatorParameters
from mponet.compress.healing.config import HealConfig as HealConfig
from mponet.compress.healing.loop import heal as heal
from mponet.compress.healing.report import HealRecord as HealRecord
from mponet.compress.healing.report import HealReport as HealReport
