"""The mathematics of diffusion and flow: processes, training loss, guidance, samplers. Tensors in, tensors out.

Time t runs from 0, the picture, to 1, noise, whatever the process (Esser et al. 2024; Liu et al. 2023 and Lipman et al.
2023 count the other way). Nothing here draws a random number: noise and times are given, for the whole batch.
"""
