"""Many recordings, each handled exactly once: the engines that spread work, and `batch` on top of them.

An engine takes a recipe for a worker (`make`) and a list of tasks, and gives one answer a task; see
`engine.py`. `bench fpr|wer --engine …` measures on the same engines.
"""
