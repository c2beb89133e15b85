"""What an operator is.

Its shape, its cores, decompositions, measures, initial values and node graphs.
"""
