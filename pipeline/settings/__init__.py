"""The settings of luigi.cfg as typed values.  settings -> raw -> tracks -> features"""
