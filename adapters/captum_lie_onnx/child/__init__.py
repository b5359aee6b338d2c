"""What runs in the child processes that open files which nobody vouches for.

Nothing here imports torch, captum_lie or the rest of the adapter, so that a child starts fast and
owns little. Modules import one another relatively: :mod:`captum_lie_onnx.child.run` loads this
folder as a package of another name, since ``captum_lie_onnx`` itself would import all of that.
"""
