# Reads   the tile stores of the train and val slides, the stain reference
# Writes  results/model/lesionmap.safetensors   weights, and all that another facility needs to use them
#         results/model/lesionmap.onnx          the same network for inference engines and other programs
#         results/model/engine_check.json       what engines are compared with before they map a slide
#         results/model/history.csv             one row per epoch
#         results/model/checkpoints/            the last epoch and the best by each view
#         results/model/learning_curves.svg     loss, Dice and AUROC over the epochs
#         results/model/MODEL_CARD.md           what the model is, from its file and what the config states
#         results/model/runs/                   the finished run that these are copied from
#         results/model/unfinished/             unfinished runs, to continue from; the history of the last one beside it
#         logs/tensorboard/                     losses and validation metrics, for TensorBoard

from lesionmap.files.records import sha256_of

# All settings that decide the weights. Their digest names the run's folder. So a run that stops or fails leaves that of
# other settings as it was, and once these are restored, Snakemake finds nothing to train.
TRAINING = {
    "model": {key: config["model"][key] for key in ("backbone", "norm", "fusion")},
    "weights": config["model"]["weights"],
    "train": train_settings(config),
    "tiles": tile_settings(config),
    "input": input_settings(config),
    "code": code_digest("train"),
}
TRAINING_RUN = sha256_of(TRAINING)[:16]


rule fetch_backbone:
    """Download torchvision's ImageNet weights of one backbone, on the machine that runs Snakemake."""
    output:
        local("resources/backbone/{backbone}.pth"),
    log:
        "logs/fetch_backbone/{backbone}.log",
    benchmark:
        "results/benchmarks/fetch_backbone/{backbone}.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(30),
    params:
        code=code_digest("fetch_backbone"),
    script:
        "../../scripts/fetch_backbone.py"


rule train:
    """Train the network on both scales of every region of the training slides."""
    input:
        train=collect("results/tiles/{slide}.h5", slide=train_slides),
        val=collect("results/tiles/{slide}.h5", slide=val_slides),
        backbone=local(backbone_file),
    output:
        f"results/model/runs/{TRAINING_RUN}/trained.json",
    log:
        "logs/train.log",
    benchmark:
        "results/benchmarks/train.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    # Each thread holds train.tile_batch tiles in the network: up to 0.7 GB a tile of 512 px with resnet50.
    threads: 4 * config["train"]["processes"]
    resources:
        mem_mb=grows(12000 * config["train"]["processes"]),
        # Training that is not finished by then continues at the next attempt.
        runtime=2880,
        gpu=0 if config["train"]["device"] == "cpu" else config["train"]["processes"],
    params:
        model=TRAINING["model"],
        weights=TRAINING["weights"],
        train=TRAINING["train"],
        tensorboard=with_prefix("logs/tensorboard"),
        tiles=TRAINING["tiles"],
        input_settings=TRAINING["input"],
        slides=slides_of_training,
        patients=recorded_patients,
        code=TRAINING["code"],
    script:
        "../../scripts/train.py"


rule publish_model:
    """Put the newly trained model in the place of the last one, which stays until then."""
    input:
        once_known(f"results/model/runs/{TRAINING_RUN}/trained.json"),
    output:
        model="results/model/lesionmap.safetensors",
        history="results/model/history.csv",
        checkpoints=directory("results/model/checkpoints"),
    log:
        "logs/publish_model.log",
    benchmark:
        "results/benchmarks/publish_model.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        # Snakemake notes the slides of a training that failed, too; those noted here are of the model in use.
        slides=slides_of_training,
        view=judged_view(config),
        code=code_digest("publish_model"),
    script:
        "../../scripts/publish_model.py"


rule export_model:
    """Write the model in use, trained here or not, for inference engines and other programs."""
    input:
        model_file,
    output:
        onnx="results/model/lesionmap.onnx",
        check="results/model/engine_check.json",
    log:
        "logs/export_model.log",
    benchmark:
        "results/benchmarks/export_model.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(10),
    params:
        code=code_digest("export_model"),
    script:
        "../../scripts/export_model.py"


rule plot_learning_curves:
    """Draw loss, Dice and AUROC over the epochs."""
    input:
        history=once_known("results/model/history.csv"),
    output:
        report(
            "results/model/learning_curves.svg",
            caption="../report/learning_curves.rst",
            category="Model",
            labels={"result": "learning curves"},
        ),
    log:
        "logs/plot_learning_curves.log",
    benchmark:
        "results/benchmarks/plot_learning_curves.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("plot_learning_curves"),
    script:
        "../../scripts/plot_learning_curves.py"


rule describe_model:
    """Write the card of the model in use, trained here or not."""
    input:
        model=model_file,
    output:
        report(
            "results/model/MODEL_CARD.md",
            caption="../report/model_card.rst",
            category="Model",
            labels={"result": "model card (Markdown)"},
        ),
    log:
        "logs/describe_model.log",
    benchmark:
        "results/benchmarks/describe_model.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        contact=config["report"]["contact"],
        organ=config["report"]["organ"],
        scanner=config["report"]["scanner"],
        hardware=config["report"]["hardware"],
        license=config["report"]["license"],
        classes=branch(config["model"]["path"], then={}, otherwise=config["annotations"]["classes"]),
        code=code_digest("describe_model"),
    script:
        "../../scripts/describe_model.py"
