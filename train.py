"""
Train MAC from a recipe, in a checkout: what `mac-train` does where the package is installed.

    python train.py recipes/tiny.yaml
    accelerate launch train.py recipes/openaqa.yaml --learning_rate 5e-5
"""

from training_mac.cli import main


if __name__ == "__main__":
    main()
