"""Packs and SAEs shared on the Hugging Face hub: model cards, ``push`` and ``pull``.

Loading them by name is below: ``pack="hub:owner/name"`` is ``steering.pack.find_pack``, SAEs are
``sae.pretrained.from_pretrained``.
"""
