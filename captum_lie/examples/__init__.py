"""Four small trained classifiers and held-out real images to try the library on, offline.

The task: which of eight photographs does a 32 x 32 crop come from? A plain convolutional net, its
anti-aliased twin, a vision transformer and an MLP-Mixer solve it about equally well, so that
differences in how they react to shifts, rotations and the like come from their architecture.

>>> images, labels = load_images(8)
>>> logits = load_model("cnn_blur")(images)
>>> logits.shape
torch.Size([8, 8])
"""

from captum_lie.examples.data import CLASSES, IMAGE_SIZE, accuracy, load_images
from captum_lie.examples.models import MODEL_NAMES, load_model

__all__ = ["CLASSES", "IMAGE_SIZE", "MODEL_NAMES", "accuracy", "load_images", "load_model"]
