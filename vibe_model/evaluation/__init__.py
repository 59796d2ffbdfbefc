"""How good a model is: errors of its predictions on a split.  features -> windows -> training -> [evaluation]"""
