import os

# The golden figures were measured with MKL's general instructions. The fast ones of toolkit/__init__.py sum in another
# order, which moves losses that depend on a matching by up to 0.4 %. Commands that the tests start are not bound by this.
os.environ["MKL_DEBUG_CPU_TYPE"] = ""
