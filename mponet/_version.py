"""The version of mponet, apart from the package root so that every module may import it."""

#: The version of mponet.
__version__ = "0.1.0"
