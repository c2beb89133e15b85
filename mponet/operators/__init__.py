"""What an operator is: its shape, its cores, decompositions, measures, initial values and node graphs."""
