"""What a methods section that describes a run has to cite."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reference:
    """A source.

    Parameters
    ----------
    key, kind : str
        Its name and type in BibTeX.
    authors : str
        As BibTeX wants them; `named` as a list of references has them.
    venue : str
        Journal, proceedings, or what else it appeared in or as.
    year : int or None
        None where it has none.
    volume, pages, doi : str
        ``35(8)``, ``1962–1971``; empty where there is none.
    """

    key: str
    kind: str
    authors: str
    named: str
    title: str
    venue: str
    year: int | None
    volume: str = ""
    pages: str = ""
    doi: str = ""

    @property
    def place(self) -> str:
        """What follows the venue: volume, pages and year."""
        volume, pages = f" {self.volume}" if self.volume else "", f":{self.pages}" if self.pages else ""
        return volume + pages + (f", {self.year}" if self.year else "")

    @property
    def bibtex(self) -> str:
        """The entry for a BibTeX file."""
        volume, _, number = self.volume.rstrip(")").partition("(")
        venue = {"article": "journal", "inproceedings": "booktitle"}.get(self.kind, "howpublished")
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            venue: self.venue,
            "year": str(self.year or ""),
            "volume": volume,
            "number": number,
            "pages": self.pages.replace("–", "--"),
            "doi": self.doi,
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


PATENT = Reference(
    "lesionmap_patent",
    "misc",
    "{Tianjin University}",
    "Tianjin University",
    "Pathology image lesion region detection based on multi-scale deep learning",
    "Patent application CN 111784671 A",
    2020,
)
VAHADANE = Reference(
    "vahadane2016",
    "article",
    "Vahadane, Abhishek and Peng, Tingying and Sethi, Amit and Albarqouni, Shadi and Wang, Lichao and others",
    "Vahadane A, et al",
    "Structure-preserving color normalization and sparse stain separation for histological images",
    "IEEE Transactions on Medical Imaging",
    2016,
    "35(8)",
    "1962–1971",
    "10.1109/TMI.2016.2529665",
)
MACENKO = Reference(
    "macenko2009",
    "inproceedings",
    "Macenko, Marc and Niethammer, Marc and Marron, J. S. and Borland, David and Woosley, John T. and others",
    "Macenko M, et al",
    "A method for normalizing histology slides for quantitative analysis",
    "IEEE International Symposium on Biomedical Imaging (ISBI)",
    2009,
    pages="1107–1110",
    doi="10.1109/ISBI.2009.5193250",
)
RUIFROK = Reference(
    "ruifrok2001",
    "article",
    "Ruifrok, Arnout C. and Johnston, Dennis A.",
    "Ruifrok AC, Johnston DA",
    "Quantification of histochemical staining by color deconvolution",
    "Analytical and Quantitative Cytology and Histology",
    2001,
    "23(4)",
    "291–299",
)
STAINTOOLS = Reference(
    "byfield",
    "misc",
    "Byfield, Peter",
    "Byfield P",
    "StainTools: tools for tissue image stain normalization and augmentation in Python",
    "github.com/Peter554/StainTools",
    None,
)
FPN = Reference(
    "lin2017fpn",
    "inproceedings",
    "Lin, Tsung-Yi and Doll{\\'a}r, Piotr and Girshick, Ross and He, Kaiming and Hariharan, Bharath and others",
    "Lin T-Y, et al",
    "Feature pyramid networks for object detection",
    "IEEE Conference on Computer Vision and Pattern Recognition (CVPR)",
    2017,
    pages="936–944",
    doi="10.1109/CVPR.2017.106",
)
RESNET = Reference(
    "he2016",
    "inproceedings",
    "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    "He K, Zhang X, Ren S, Sun J",
    "Deep residual learning for image recognition",
    "IEEE Conference on Computer Vision and Pattern Recognition (CVPR)",
    2016,
    pages="770–778",
    doi="10.1109/CVPR.2016.90",
)
FOCAL = Reference(
    "lin2017focal",
    "inproceedings",
    "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Doll{\\'a}r, Piotr",
    "Lin T-Y, et al",
    "Focal loss for dense object detection",
    "IEEE International Conference on Computer Vision (ICCV)",
    2017,
    pages="2999–3007",
    doi="10.1109/ICCV.2017.324",
)
CAMELYON = Reference(
    "bejnordi2017",
    "article",
    "Ehteshami Bejnordi, Babak and Veta, Mitko and van Diest, Paul Johannes and van Ginneken, Bram and others",
    "Ehteshami Bejnordi B, et al",
    "Diagnostic assessment of deep learning algorithms for detection of lymph node metastases in women with breast "
    "cancer",
    "JAMA",
    2017,
    "318(22)",
    "2199–2210",
    "10.1001/jama.2017.14585",
)
BOOTSTRAP = Reference(
    "hesterberg2015",
    "article",
    "Hesterberg, Tim C.",
    "Hesterberg TC",
    "What teachers should know about the bootstrap: resampling in the undergraduate statistics curriculum",
    "The American Statistician",
    2015,
    "69(4)",
    "371–386",
    "10.1080/00031305.2015.1089789",
)
STAIN_METHODS = {"vahadane": VAHADANE, "staintools": VAHADANE, "macenko": MACENKO, "none": RUIFROK}


def cited_sources(stain: Mapping[str, Any], *, evaluated: bool) -> dict[str, Reference]:
    """What a run rests on, by what it is cited for, in the order of the text.

    Parameters
    ----------
    stain : mapping
        The config's section.
    evaluated : bool
        Whether any map was held against an annotation.
    """
    sources = {"patent": PATENT, "stain": STAIN_METHODS[stain["method"]]}
    if stain["method"] == "staintools":
        sources["staintools"] = STAINTOOLS
    if stain["fallback"] == "macenko" and stain["method"] != "macenko":
        sources["macenko"] = MACENKO
    sources |= {"fpn": FPN, "resnet": RESNET, "focal": FOCAL}
    return sources | ({"camelyon": CAMELYON, "bootstrap": BOOTSTRAP} if evaluated else {})
