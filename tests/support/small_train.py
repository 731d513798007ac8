"""`python -m tests.support.small_train`: `eager_train` with a small encoder."""

from tests.support import eager_train, small_encoder

if __name__ == "__main__":
    small_encoder.install()
    eager_train.main()
