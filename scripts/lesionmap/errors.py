"""All errors that a user can meet. Each message names the slide, the stage, the finding and a remedy."""


class LesionMapError(Exception):
    """Base of all errors that the data or the settings cause, not the program.

    Parameters
    ----------
    stage : str
        The rule in which the problem was found, e.g. ``"fit_stain"``.
    finding : str
        What was found, with the numbers that matter.
    remedy : str
        What the user can do about it.
    slide : str, optional
        Id of the slide, if the error is about one slide.
    """

    def __init__(self, *, stage: str, finding: str, remedy: str, slide: str | None = None) -> None:
        self.stage, self.finding, self.remedy, self.slide = stage, finding, remedy, slide
        about = f"slide {slide}, {stage}" if slide else stage
        super().__init__(f"{about}: {finding}. Remedy: {remedy}.")


class SlideError(LesionMapError):
    """A slide cannot be opened, cannot be read somewhere, or does not fit its role."""


class AnnotationError(LesionMapError):
    """An annotation file cannot be understood or does not fit its slide."""


class ExportError(SlideError):
    """A picture or an export of a slide cannot be made; no result depends on it."""


class StainError(LesionMapError):
    """No stain basis can be fitted to a slide."""


class SettingsError(LesionMapError):
    """The config or the slide sheet contradicts itself or its schema."""


class ModelError(LesionMapError):
    """A model or backbone file cannot be used."""


class TrainingError(LesionMapError):
    """The cohort cannot be trained on, or training has diverged."""


class InterruptedTrainingError(LesionMapError):
    """Training was asked to stop, and has saved its state."""


class StorageError(LesionMapError):
    """A disk is full, or a folder cannot be written to."""


class ChangedSlideError(LesionMapError):
    """A slide is no longer the one that was inspected."""


class RemoteError(LesionMapError):
    """A server that slides are fetched from cannot be reached or fails."""
