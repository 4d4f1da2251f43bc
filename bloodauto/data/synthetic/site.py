"""Simulates acquisition sites: stain, light, optics and sensor that turn a drawn field of view into an image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import DataError
from bloodauto.types import Floats, Image

Density = tuple[float, float, float]


@dataclass(frozen=True)
class Stain:
    """What the dyes absorb, as optical density (natural logarithm) in red, green and blue at amount 1.

    The densities are those of displayed values. A camera's power-law gamma only divides every density by the same
    number, so that Beer and Lambert's law holds for displayed values as well as for light.

    Attributes:
        chromatin: the first absorber of ``film.py``, in nuclei.
        basophilic: the second, blue in cytoplasm.
        eosin: the third, pink.
        haemoglobin: the fourth, in red cells.
        intensity: factor on all of them (time in the dye).
        intensity_spread: relative standard deviation of the intensity from image to image.
        hue_spread: relative standard deviation of each absorber's own amount from image to image.
    """

    chromatin: Density
    basophilic: Density
    eosin: Density
    haemoglobin: Density
    intensity: float = 1.0
    intensity_spread: float = 0.1
    hue_spread: float = 0.08


@dataclass(frozen=True)
class Illumination:
    """The lamp.

    Attributes:
        colour_temperature_kelvin: of a black body; 6500 is neutral, less is yellower.
        brightness: displayed value of empty glass in its brightest channel, relative to 255.
        vignette: part of the light that is missing in the corners (0-1).
        colour_temperature_spread: relative standard deviation of the colour temperature from image to image.
        brightness_spread: relative standard deviation of the brightness from image to image.
    """

    colour_temperature_kelvin: float = 6500.0
    brightness: float = 1.0
    vignette: float = 0.0
    colour_temperature_spread: float = 0.04
    brightness_spread: float = 0.03


@dataclass(frozen=True)
class Optics:
    """The microscope.

    Attributes:
        field_of_view_um: side of an image in micrometres; smaller is a higher magnification.
        blur_um: standard deviation of the blur in focus, in micrometres.
        defocus_um: largest additional blur; each image draws its own between 0 and this.
        stray_light: part of the light that reaches the sensor without passing the film (0-1); it lightens the dark parts.
    """

    field_of_view_um: float = 21.5
    blur_um: float = 0.12
    defocus_um: float = 0.0
    stray_light: float = 0.0


@dataclass(frozen=True)
class Sensor:
    """The camera.

    Attributes:
        noise_grey_levels: standard deviation of independent noise per pixel and channel.
        jpeg_quality: 1-100; None keeps the image uncompressed.
    """

    noise_grey_levels: float = 1.0
    jpeg_quality: int | None = 90


@dataclass(frozen=True)
class SyntheticSite:
    """Everything that images of one site have in common.

    Attributes:
        name: identifies the site; the drawn cells depend on it.
        stain: the dyes.
        illumination: the lamp.
        optics: the microscope.
        sensor: the camera.

    Raises:
        DataError: a value that no site can have.
    """

    name: str
    stain: Stain
    illumination: Illumination
    optics: Optics
    sensor: Sensor

    def __post_init__(self) -> None:
        stain, lamp, optics, sensor = self.stain, self.illumination, self.optics, self.sensor
        quality = 100 if sensor.jpeg_quality is None else sensor.jpeg_quality
        for what, value, least, most in (
            ("stain.intensity", stain.intensity, 0.0, 10.0),
            ("stain.intensity_spread", stain.intensity_spread, 0.0, 1.0),
            ("stain.hue_spread", stain.hue_spread, 0.0, 1.0),
            ("illumination.colour_temperature_kelvin", lamp.colour_temperature_kelvin, 1000.0, 40000.0),
            ("illumination.colour_temperature_spread", lamp.colour_temperature_spread, 0.0, 1.0),
            ("illumination.brightness", lamp.brightness, 0.05, 5.0),
            ("illumination.brightness_spread", lamp.brightness_spread, 0.0, 1.0),
            ("illumination.vignette", lamp.vignette, 0.0, 1.0),
            ("optics.field_of_view_um", optics.field_of_view_um, 5.0, 200.0),
            ("optics.blur_um", optics.blur_um, 0.0, 10.0),
            ("optics.defocus_um", optics.defocus_um, 0.0, 10.0),
            ("optics.stray_light", optics.stray_light, 0.0, 1.0),
            ("sensor.noise_grey_levels", sensor.noise_grey_levels, 0.0, 255.0),
            ("sensor.jpeg_quality", quality, 1, 100),
        ):
            if not least <= value <= most:
                raise DataError(f"Synthetic site {self.name!r}: expected {what} in {least}..{most}, got {value}.")


#: ``lab_a`` looks like an automated slide scanner with May-Grünwald-Giemsa stain, ``lab_b`` like a hand-held camera on
#: a microscope with a bluish Wright stain, ``lab_c`` like an old microscope: tungsten light, overstained, vignetted.
SYNTHETIC_SITES: dict[str, SyntheticSite] = {
    site.name: site
    for site in (
        SyntheticSite(
            "lab_a",
            Stain(
                chromatin=(1.15, 1.80, 0.47),
                basophilic=(0.75, 0.70, 0.14),
                eosin=(0.36, 0.90, 0.66),
                haemoglobin=(0.28, 0.41, 0.32),
            ),
            Illumination(colour_temperature_kelvin=4500.0, vignette=0.02),
            Optics(defocus_um=0.12),
            Sensor(noise_grey_levels=1.5, jpeg_quality=90),
        ),
        SyntheticSite(
            "lab_b",
            Stain(
                # Mixtures of the Giemsa dyes' published densities (G. Landini's vectors for colour deconvolution).
                chromatin=(0.80, 0.93, 0.32),
                basophilic=(0.51, 0.40, 0.15),
                eosin=(0.12, 0.61, 0.19),
                haemoglobin=(0.07, 0.36, 0.30),
            ),
            Illumination(colour_temperature_kelvin=5700.0, brightness=0.9, vignette=0.06),
            Optics(field_of_view_um=23.0, blur_um=0.2, defocus_um=0.25, stray_light=0.03),
            Sensor(noise_grey_levels=2.5, jpeg_quality=75),
        ),
        SyntheticSite(
            "lab_c",
            Stain(
                chromatin=(1.30, 1.45, 0.55),
                basophilic=(0.92, 0.68, 0.28),
                eosin=(0.30, 0.75, 0.80),
                haemoglobin=(0.30, 0.50, 0.55),
                intensity=1.15,
            ),
            Illumination(colour_temperature_kelvin=3700.0, brightness=0.95, vignette=0.2),
            Optics(field_of_view_um=19.5, blur_um=0.15, defocus_um=0.2, stray_light=0.05),
            Sensor(noise_grey_levels=4.0, jpeg_quality=80),
        ),
    )
}


def find_site(site: SyntheticSite | str) -> SyntheticSite:
    """Finds a predefined site by its name; a ``SyntheticSite`` is returned as it is.

    Raises:
        DataError: no site has that name; the message gives the nearest one.
    """
    if isinstance(site, SyntheticSite):
        return site
    if site in SYNTHETIC_SITES:
        return SYNTHETIC_SITES[site]
    raise DataError(f"Synthetic images: expected a known site, got {site!r}; {did_you_mean(site, SYNTHETIC_SITES)}")


def lamp_colour(colour_temperature_kelvin: float) -> Floats:
    """Displayed red, green and blue of a black body relative to one of 6500 K, float64, (3,), the largest is 1.

    Planck's law at 610, 550 and 465 nm, and a display gamma of 2.2.
    """
    wavelength_um = np.array([0.610, 0.550, 0.465])
    second_radiation_constant = 14388.0  # h c / k, in micrometre kelvin
    radiance = np.expm1(second_radiation_constant / (wavelength_um * 6500.0)) / np.expm1(
        second_radiation_constant / (wavelength_um * colour_temperature_kelvin)
    )
    colour: Floats = (radiance / radiance.max()) ** (1 / 2.2)
    return colour


def render_image(rng: np.random.Generator, amounts: Floats, site: SyntheticSite) -> Image:
    """Stains, lights, focuses and records a drawn field of view.

    Args:
        rng: draws the variation from image to image, the focus and the noise.
        amounts: float32, (4, size, size), of ``morphology.draw_cell``.
        site: how the image is acquired.

    Returns:
        uint8, (size, size, 3), RGB.
    """
    stain, lamp, optics, sensor = site.stain, site.illumination, site.optics, site.sensor
    size = amounts.shape[1]
    densities = np.array([stain.chromatin, stain.basophilic, stain.eosin, stain.haemoglobin])
    strength = stain.intensity * np.exp(
        stain.intensity_spread * rng.standard_normal() + stain.hue_spread * rng.standard_normal(4)
    )
    brightness = lamp.brightness * np.exp(lamp.brightness_spread * rng.standard_normal())
    temperature_kelvin = lamp.colour_temperature_kelvin * np.exp(lamp.colour_temperature_spread * rng.standard_normal())
    sigma_um = np.hypot(optics.blur_um, optics.defocus_um * rng.random())

    optical_density = np.einsum(
        "khw,kc->hwc", amounts, (densities * strength[:, None]).astype(np.float32), optimize=True
    )
    transmitted = np.exp(-optical_density)
    transmitted = cv2.GaussianBlur(transmitted, (0, 0), max(float(sigma_um) * size / optics.field_of_view_um, 0.2))
    transmitted = optics.stray_light + (1 - optics.stray_light) * transmitted
    if lamp.vignette > 0:
        offset = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        transmitted *= (1 - lamp.vignette * (offset[:, None] ** 2 + offset**2) / 2)[..., None]
    image = transmitted * (255 * brightness * lamp_colour(temperature_kelvin)).astype(np.float32)
    if sensor.noise_grey_levels > 0:
        image += sensor.noise_grey_levels * rng.standard_normal(image.shape, dtype=np.float32)
    recorded: Image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if sensor.jpeg_quality is None:
        return recorded
    _, encoded = cv2.imencode(".jpg", recorded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "just encoded"
    return np.ascontiguousarray(decoded[..., ::-1])
