"""The report's sections about training and evaluation.  training -> evaluation -> [report]"""
