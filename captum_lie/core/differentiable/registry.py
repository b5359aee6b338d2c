"""The rules of this engine (``rules/``).

Autograd records what a rule does with tensors; to operations on duals it must say
:func:`~captum_lie.core.differentiable.dual.below`.
"""

from captum_lie.core.tangents.table import RuleTable

_TABLE = RuleTable()
RULES, rule, rule_of, resolver = _TABLE.rules, _TABLE.rule, _TABLE.rule_of, _TABLE.resolver
