"""Print the page: ``python -m captum_lie_timm.catalogue > docs/paper_models.md``."""

from captum_lie_timm.catalogue.page import page

print(page(), end="")
