# Reads   the tile stores of the train and val slides, the stain reference
# Writes  results/model/lesionmap.safetensors   weights, and all that another facility needs to use them
#         results/model/history.csv             one row per epoch
#         results/model/checkpoints/            the last and the best epoch
#         results/model/learning_curves.svg     loss, Dice and AUROC over the epochs
#         results/model/MODEL_CARD.md           what the model is, from the model file alone
#         results/model/unfinished.pt           while training is unfinished: its state, to continue from
#         logs/tensorboard/                     losses and validation metrics, for TensorBoard


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
        model="results/model/lesionmap.safetensors",
        history="results/model/history.csv",
        checkpoints=directory("results/model/checkpoints"),
    log:
        "logs/train.log",
    benchmark:
        "results/benchmarks/train.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    # Each thread holds train.tile_batch tiles in the network: up to 0.5 GB a tile of 512 px with resnet50.
    threads: 4 * config["train"]["processes"]
    resources:
        mem_mb=grows(12000 * config["train"]["processes"]),
        # Training that is not finished by then continues at the next attempt.
        runtime=2880,
        gpu=0 if config["train"]["device"] == "cpu" else config["train"]["processes"],
    params:
        model={key: config["model"][key] for key in ("backbone", "norm", "fusion")},
        weights=config["model"]["weights"],
        train=train_settings(config),
        tensorboard=with_prefix("logs/tensorboard"),
        tiles=tile_settings(config),
        code=code_digest("train"),
    script:
        "../../scripts/train.py"


rule plot_learning_curves:
    """Draw loss, Dice and AUROC over the epochs."""
    input:
        history=after_manifest("results/model/history.csv"),
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
        code=code_digest("describe_model"),
    script:
        "../../scripts/describe_model.py"
