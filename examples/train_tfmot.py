r"""The same as train.py for tf_keras: the layers are wrapped by the Model Optimization Toolkit.

Flags, files and phases are those of train.py. Needs the packages of the extra `tfmot`, and Keras 3
on TensorFlow, whose operations the quantizers use.

Example:
    python examples/train_tfmot.py --method=bsq --dataset=fashion_mnist --network=lenet5 \
        --epochs=3 --model_dir=runs/bsq --export=runs/bsq/m.tflite

`docs/training.md` explains the phases, the files, and what can be set. All flags: --helpfull.
"""

from training import kinds, program
from training.flags import define_flags

if __name__ == "__main__":
    define_flags()
    program.start("train_tfmot", kinds.tf_keras)
