"""Bodies on new videos, and pictures of them.  features -> windows -> [bodies]"""
