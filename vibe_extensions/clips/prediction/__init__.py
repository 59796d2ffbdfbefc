"""Bodies predicted in new videos, and images of them.  features -> windows -> [bodies]"""
