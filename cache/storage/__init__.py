"""Where bytes lie: a folder of this machine or an object store; durable writes, locks, journals.  [cache]"""
