# Generators, by name. Image shape and normalisation are the teacher's.
generators = dict(
    # DAFL: 8,423,939 parameters for 3 x 32 x 32 pixels.
    dafl=dict(latent_size=1000, eps=0.8),
    # DFAD and DDAD: 2,329,091.
    dfad=dict(latent_size=256),
    # ZSKT: 1,051,145.
    zskt=dict(latent_size=100, head='bn'),
    # DFQ, and the common generator of later papers: 2,328,899.
    dfq=dict(latent_size=256, head='sigmoid', bias=False),
    # DFAD and DDAD from 64 pixels on: 4,927,171 for 3 x 64 x 64.
    transposed=dict(type='TransposedGenerator'),
    # PRE-DFKD, for new images and for replayed ones: 8,423,939 each.
    pre=dict(latent_size=1000, eps=0.8, spectral_norm=True, init_range=0.08),
    pre_memory=dict(latent_size=1000, eps=0.8, init_range=0.08),
    # The embedded benchmark, small enough for a CPU: 139,089 for 1 x 32 x 32.
    digits=dict(latent_size=64, widths=(32, 16, 8)),
    # The same, ending as that of DFQ: 139,065.
    digits_sigmoid=dict(latent_size=64, widths=(32, 16, 8), head='sigmoid', bias=False),
    # Smooth images, in which its teacher sees six or seven classes before any training.
    digits_smooth=dict(latent_size=64, widths=(32, 32, 32), enlarge=4),
)
