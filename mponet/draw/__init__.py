"""Diagrams of operators and networks, laid out the way physicists draw them; `text` for terminals."""

from mponet.draw.text import diagram as diagram
from mponet.draw.text import sheet as sheet
