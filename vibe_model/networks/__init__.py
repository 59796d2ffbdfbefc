"""The networks: generator, discriminator, motion prior.  features -> [networks] -> bodies"""
