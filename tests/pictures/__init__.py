"""The pictures in docs/images, made by ``make pictures`` from the real program."""
