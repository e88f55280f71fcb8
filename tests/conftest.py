import os

# The golden figures were measured with MKL's general instructions. The fast ones that toolkit/__init__.py asks for
# sum in another order, which moves losses that depend on a matching by up to 0.4 %. Processes that tests start are free.
os.environ["MKL_DEBUG_CPU_TYPE"] = ""
