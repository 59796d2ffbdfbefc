"""The official layout of each dataset, written from rendered bodies.  pixels and labels -> [raw]"""
