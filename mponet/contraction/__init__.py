"""How an operator is contracted with a batch: plans, their cost, the search for them, and their execution."""
