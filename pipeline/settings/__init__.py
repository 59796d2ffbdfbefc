"""luigi.cfg, typed.  settings -> raw -> tracks -> features"""
