"""What adapters build on: packages that teach this library other models, formats and commands.

An adapter imports the public names (:mod:`captum_lie` itself, ``errors``, ``groups``, ``metrics``,
``layouts``, ``layerwise``, ``plotting``, ``images``, ``examples``, ``models``, ``preprocessing``,
``resampling``, ``results``) and what lies here, and announces what it adds as an entry point. The
library never imports an adapter by name; it finds it by these groups:

- ``captum_lie.models``: ``load(name, pretrained, checkpoint) -> nn.Module``, a model that takes
  plain images in [0, 1]; :class:`captum_lie.errors.UnknownModelError` if the name is not its own.
- ``captum_lie.commands``: a function that Typer makes a command of.
- ``captum_lie.images``: ``open(text) -> data set``, images with their labels by a name of its own
  (:func:`captum_lie.images.open_images`).
- ``captum_lie.catalogues``: a :class:`captum_lie.extending.studies.Catalogue`, which tells sweeps
  what is known of its models.
- ``captum_lie.demo``: ``section(out: Path) -> Section | None``, a part of the demo's report.

Layout rules need no entry point: :func:`captum_lie.layouts.register` when the adapter is imported,
which a loader's call does.

- :mod:`captum_lie.extending.checks`: checks on what users pass in.
- :mod:`captum_lie.extending.commands`: what a command reads and says.
- :mod:`captum_lie.extending.compat`: what the oldest supported Python lacks.
- :mod:`captum_lie.extending.metrics`: how a metric evaluates a model and returns its number.
- :mod:`captum_lie.extending.options`: options that commands share.
- :mod:`captum_lie.extending.pages`: sections, templates and figures of reports.
- :mod:`captum_lie.extending.studies`: the main job, models over images.
- :mod:`captum_lie.extending.tensors`: derivatives of functions of tensors.

Nothing is imported here: the numerical modules do without the command line's libraries.
"""
