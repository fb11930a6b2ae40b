"""The samplers, on a model that is known in closed form: pictures whose pixels are independent normal numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoedit import sampling
from emoedit.types import EditError

ALPHAS = sampling.alpha_bar(torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64))
DEVIATION = 0.4  # of the pixels


def eps_at(x: torch.Tensor, t: int) -> torch.Tensor:
    """The noise that the best possible model finds in x_t."""
    a = float(ALPHAS[t])
    return (1 - a) ** 0.5 * x / (a * DEVIATION**2 + 1 - a)


def bent_eps_at(x: torch.Tensor, t: int) -> torch.Tensor:
    """The same with a bend in it, as a real model is not linear."""
    return eps_at(x, t) + 0.2 * torch.sin(3 * x)


def unshifted(model):
    return lambda x, t: (model(x, t), None)


def pictures(count: int = 2) -> torch.Tensor:
    return DEVIATION * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (one - other).square().mean()))


def plain(model, x: torch.Tensor, steps: int) -> torch.Tensor:
    schedule = sampling.make_schedule(ALPHAS, steps)
    latent, _ = list(sampling.inversion_path(model, x, schedule))[-1]
    return sampling.decode(unshifted(model), latent, schedule)


def exact(model, x: torch.Tensor, steps: int) -> torch.Tensor:
    schedule = sampling.make_schedule(ALPHAS, steps)
    latent, residuals = sampling.exact_inversion(sampling.inversion_path(model, x, schedule), schedule)
    return sampling.decode(unshifted(model), latent, schedule, residuals=residuals)


@pytest.mark.parametrize("t_last", [999, 600, 1])
def test_the_schedule_is_asyrps(t_last):
    for steps in {2, 3, 20, 40, 50, 400, t_last, t_last + 1} - {1}:
        if steps > t_last + 1:
            continue
        theirs = [int(s + 1e-6) for s in np.linspace(0, 1, steps) * t_last]
        schedule = sampling.make_schedule(ALPHAS, steps, t_last)
        assert list(schedule.timesteps) == theirs
        assert schedule.alpha_bar == tuple(float(ALPHAS[t]) for t in theirs)
    assert sampling.make_schedule(ALPHAS, 4).timesteps == (0, 333, 666, 999)
    assert schedule.below(0) == 1 and schedule.below(1) == schedule.alpha_bar[0]


def test_schedules_that_cannot_be_are_refused():
    for steps, t_last, match in ((1001, None, "1000"), (1, None, "1 steps"), (0, 9, "0 steps"), (20, 9, "0 to 9")):
        with pytest.raises(EditError, match=match):
            sampling.make_schedule(ALPHAS, steps, t_last)
    for t_last in (1000, 0, -1):
        with pytest.raises(EditError, match="0 to 999"):
            sampling.make_schedule(ALPHAS, 2, t_last)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("t", [900, 500, 100, 0])
def test_a_step_is_that_of_diffusers(eta, t):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(10)
    x, eps, noise = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    theirs = scheduler.step(eps, t, x, eta=eta, variance_noise=noise)
    a_t, a_next = float(ALPHAS[t]), float(ALPHAS[t - 100]) if t else 1.0
    ours = sampling.ddim_step(x, eps, a_t, a_next, noise=noise if eta else None)
    torch.testing.assert_close(ours, theirs.prev_sample, atol=1e-5, rtol=1e-5)
    predicted = sampling.predicted_x0(x, eps, a_t)
    torch.testing.assert_close(predicted, theirs.pred_original_sample, atol=1e-5, rtol=1e-4)


def test_the_asymmetric_step_moves_the_predicted_picture_only():
    x, eps, shifted = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    a_t, a_next = 0.3, 0.5
    difference = sampling.ddim_step(x, eps, a_t, a_next, eps_shifted=shifted) - sampling.ddim_step(x, eps, a_t, a_next)
    moved = sampling.predicted_x0(x, shifted, a_t) - sampling.predicted_x0(x, eps, a_t)
    torch.testing.assert_close(difference, a_next**0.5 * moved)
    # In both terms, the shift has to be larger by symmetric_gain to do the same.
    gain = sampling.symmetric_gain(a_t, a_next)
    assert gain > 1
    torch.testing.assert_close(
        sampling.ddim_step(x, eps + gain * (shifted - eps), a_t, a_next),
        sampling.ddim_step(x, eps, a_t, a_next, eps_shifted=shifted),
    )
    assert sampling.symmetric_gain(a_t, 1.0) == 1  # the last step has no D_t


def test_a_step_up_undoes_a_step_down():
    x, eps = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    down = sampling.ddim_step(x, eps, 0.3, 0.5)
    torch.testing.assert_close(sampling.ddim_step(down, eps, 0.5, 0.3), x)


def test_inversion_reaches_the_latent_of_the_differential_equation():
    """For normal pixels the flow only scales: by the ratio of deviations at T and at the start."""
    x = pictures()
    a_0, a_t = float(ALPHAS[0]), float(ALPHAS[999])
    truth = x * ((a_t * DEVIATION**2 + 1 - a_t) / (a_0 * DEVIATION**2 + 1 - a_0)) ** 0.5
    errors = []
    for steps in (20, 80, 320):
        latent, _ = list(sampling.inversion_path(eps_at, x, sampling.make_schedule(ALPHAS, steps)))[-1]
        errors.append(float((latent - truth).abs().max()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_exact_inversion_beats_plain_at_half_the_steps():
    x = pictures()
    assert psnr(exact(bent_eps_at, x, 20), x) > 200 > 60 > psnr(plain(bent_eps_at, x, 40), x)
    assert psnr(plain(bent_eps_at, x, 40), x) > psnr(plain(bent_eps_at, x, 20), x) + 3


def test_an_edit_of_an_exact_inversion_is_nearer_to_the_truth():
    """The truth being the edit by very many steps, put onto the source itself."""
    x = pictures()

    def edited(steps: int, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
        schedule = sampling.make_schedule(ALPHAS, steps)
        path = list(sampling.inversion_path(bent_eps_at, x, schedule))
        latent, residuals = sampling.exact_inversion(iter(path), schedule)
        residuals = residuals if keep else None

        def shifted(x_t, t):
            eps = bent_eps_at(x_t, t)
            return eps, eps - 1 / steps if t >= 500 else None

        return tuple(
            sampling.decode(f, latent, schedule, residuals=residuals) for f in (shifted, unshifted(bent_eps_at))
        )

    edit, reconstruction = edited(800, True)
    truth = x + (edit - reconstruction)
    assert float((edit - reconstruction).abs().mean()) > 0.02

    def error(steps: int, keep: bool) -> float:
        return float((edited(steps, keep)[0] - truth).norm())

    assert error(20, True) < 0.9 * error(20, False)
    assert error(40, True) < 0.9 * error(40, False)
    assert error(40, True) < 0.6 * error(20, True)


def test_one_pass_of_the_model_a_step():
    calls = []

    def counted(x, t):
        calls.append(t)
        return eps_at(x, t)

    schedule = sampling.make_schedule(ALPHAS, 12)
    latent, residuals = sampling.exact_inversion(sampling.inversion_path(counted, pictures(), schedule), schedule)
    assert calls == list(schedule.timesteps)
    assert residuals.shape == (2, 12, 1, 8, 8)
    done = []
    sampling.decode(
        unshifted(counted), latent, schedule, residuals=residuals, callback=lambda *done_of: done.append(done_of)
    )
    assert calls[12:] == list(reversed(schedule.timesteps))
    assert done == [(k + 1, 12) for k in range(12)]


def test_noise_in_every_step_samples_the_distribution():
    """eta = 1 from pure noise is DDPM: what comes out has the deviation of the pictures."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 1, 8, 8, generator=generator).double()
    schedule = sampling.make_schedule(ALPHAS, 1000)

    def noise():
        return torch.randn(x.shape, generator=generator).double()

    out = sampling.decode(unshifted(eps_at), x, schedule, t_boost=1000, noise=noise)
    assert float(out.std()) == pytest.approx(DEVIATION, rel=0.03)
    assert abs(float((out * x).mean() / x.std() / out.std())) < 0.05  # nothing of x_T is left


def test_quality_boosting_leaves_the_steps_above_it_alone():
    x, schedule = pictures(), sampling.make_schedule(ALPHAS, 10)
    seen = []

    def model(x_t, t):
        seen.append((t, x_t))
        return bent_eps_at(x_t, t), None

    latent, residuals = sampling.exact_inversion(sampling.inversion_path(bent_eps_at, x, schedule), schedule)
    elsewhere = residuals.clone()
    elsewhere[:, :3] = 9.0  # of the steps that draw noise: not looked at
    results = []
    for t_boost, kept in ((0, residuals), (300, residuals), (300, elsewhere)):
        noise = sampling.picture_noise(torch.tensor([1, 2]), (1, 8, 8), x.device)
        results.append(sampling.decode(model, latent, schedule, residuals=kept, t_boost=t_boost, noise=noise))
    assert torch.equal(results[1], results[2]) and not torch.equal(results[0], results[1])
    for (t, without), (same_t, boosted) in zip(seen[:10], seen[10:20], strict=True):
        assert t == same_t
        # 222 is the first timestep below 300: what it starts from is still the path, what it gives is not.
        assert torch.equal(without, boosted) == (t >= 222)


def test_noise_of_a_picture_does_not_depend_on_its_batch():
    together = sampling.picture_noise(torch.tensor([5, 6, 5]), (2, 4, 4), torch.device("cpu"))
    alone = sampling.picture_noise(torch.tensor([6]), (2, 4, 4), torch.device("cpu"))
    for _ in range(2):
        many, one = together(), alone()
        assert torch.equal(many[1:2], one)
        assert torch.equal(many[0], many[2]) and not torch.equal(many[0], many[1])
    assert not torch.equal(one, sampling.picture_noise(torch.tensor([6]), (2, 4, 4), torch.device("cpu"))())


def test_the_ends_of_editing_are_read_off_distance_curves():
    timesteps, distances = (0, 250, 500, 750), (0.1, 0.28, 0.35, 1.3)
    assert sampling.find_t_edit(timesteps, distances) == 500
    assert sampling.find_t_edit(timesteps, distances, cosine=0.8) == 250
    assert sampling.find_t_boost(timesteps, distances) == 750
    assert sampling.first_reaching((750, 0, 500), (1.3, 0.1, 0.35), 0.35) == 500  # in any order
    with pytest.raises(EditError, match=r"largest value is 1\.3"):
        sampling.first_reaching(timesteps, distances, 2)


def test_noise_where_something_changes_leaves_the_rest_on_its_path():
    x, schedule = pictures(), sampling.make_schedule(ALPHAS, 10)
    latent, residuals = sampling.exact_inversion(sampling.inversion_path(bent_eps_at, x, schedule), schedule)
    where = torch.zeros(len(x), 1, 8, 8).double()
    where[..., 5:] = 1
    seen = []

    def changed(predicted):
        seen.append(predicted)
        return where

    def noise():
        return sampling.picture_noise(torch.tensor([1, 2]), (1, 8, 8), x.device)

    model, settings = unshifted(bent_eps_at), {"residuals": residuals, "t_boost": 300}
    out = sampling.decode(model, latent, schedule, noise=noise(), changed=changed, **settings)
    everywhere = sampling.decode(model, latent, schedule, noise=noise(), changed=lambda p: where * 0 + 1, **settings)
    plain = sampling.decode(model, latent, schedule, noise=noise(), **settings)
    assert len(seen) == 1 and seen[0].shape == x.shape  # asked once, when noise begins
    torch.testing.assert_close(everywhere, plain)
    error = (out - x).abs().amax((0, 1, 2))
    assert float(error[:5].max()) < 1e-9  # this model looks at every pixel alone: nothing drawn reaches the others
    assert float(error[5:].min()) > 1e-3


def test_a_new_mouth_counts_as_changed_and_a_shade_does_not():
    source = torch.zeros(1, 1, 96, 96)
    source[..., 60:64, 30:66] = -0.8
    opened, shaded = source.clone(), source.clone()
    opened[..., 60:74, 34:62] = -1.2
    shaded[..., :48, :] += 0.08
    where = sampling.change_mask(opened, source)
    assert where.shape == (1, 1, 96, 96)
    assert float(where[0, 0, 69, 48]) > 0.95 and float(where[0, 0, :40].max()) == 0
    assert float(sampling.change_mask(shaded, source).max()) == 0
    # The same picture at another size has its change at the same place.
    twice = sampling.change_mask(*(torch.nn.functional.interpolate(v, scale_factor=2) for v in (opened, source)))
    torch.testing.assert_close(twice[..., ::2, ::2], where, atol=0.08, rtol=0)
