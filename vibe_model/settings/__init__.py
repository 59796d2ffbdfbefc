"""Every setting of a training, typed; no torch.  settings -> training"""
