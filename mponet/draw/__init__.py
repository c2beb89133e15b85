"""Pictures of operators, layers, networks and plans, in the notation of tensor networks.

`render` returns a picture as text, SVG, PNG, HTML or DOT, and `save` writes it to a file.
Notebooks show the picture of every value that has one.
"""

from mponet.draw.formats import FORMATS as FORMATS
from mponet.draw.formats import notebook_html as notebook_html
from mponet.draw.formats import notebook_svg as notebook_svg
from mponet.draw.formats import render as render
from mponet.draw.formats import save as save
from mponet.draw.one_line import line as line
from mponet.draw.options import DrawOptions as DrawOptions
from mponet.draw.options import operators as operators
from mponet.draw.text import diagram as diagram
from mponet.draw.text import sheet as sheet
