# Reads   the tile stores, and what the maps of slides are made from
# Writes  results/experiments/folds.tsv            which slides are held out together
#         results/experiments/models/{recipe}/     trainings, by seed and fold; variants may share them
#         results/experiments/variants/{variant}/  for each seed the models, and the maps, lesions and metrics of the
#                                                  slides that they have not seen; ensemble/ has those of other slides


checkpoint assign_folds:
    """Divide patients into folds; those that the table has keep theirs."""
    input:
        manifest="results/manifest.tsv",
        identities="results/annotations.tsv",
        annotations=ancient(collect("results/annotations/{slide}.geojson", slide=fold_rows(None))),
    output:
        update("results/experiments/folds.tsv"),
    log:
        "logs/assign_folds.log",
    benchmark:
        "results/benchmarks/assign_folds.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        rows=fold_rows,
        excluded=pruned_slides,
        settings={"folds": N_FOLDS, "seed": config["experiments"]["fold_seed"]},
        code=code_digest("assign_folds"),
    script:
        "../../scripts/assign_folds.py"


use rule train as train_fold with:
    input:
        train=collect("results/tiles/{slide}.h5", slide=in_role("train")),
        val=collect("results/tiles/{slide}.h5", slide=in_role("val")),
        backbone=local(recipe_backbone),
    output:
        "results/experiments/models/{recipe}/seed_{seed}/fold_{fold}/runs/finished/trained.json",
    log:
        "logs/train_fold/{recipe}/seed_{seed}/fold_{fold}.log",
    benchmark:
        "results/benchmarks/train_fold/{recipe}/seed_{seed}/fold_{fold}.tsv"
    params:
        model=recipe_settings("model"),
        weights=recipe_settings("weights"),
        train=recipe_training,
        tensorboard=with_prefix("logs/tensorboard/{recipe}/seed_{seed}/fold_{fold}"),
        slides=fold_slides,


rule publish_fold_model:
    """Take the epoch of a fold's training that is best by the maps which its variant makes."""
    input:
        fold_training,
    output:
        model="results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/lesionmap.safetensors",
        history="results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/history.csv",
    log:
        "logs/publish_fold_model/{variant}/seed_{seed}/fold_{fold}.log",
    benchmark:
        "results/benchmarks/publish_fold_model/{variant}/seed_{seed}/fold_{fold}.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        view=of_variant(judged_view),
        code=code_digest("publish_fold_model"),
    script:
        "../../scripts/publish_fold_model.py"


use rule export_model as export_fold_model with:
    input:
        "results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/lesionmap.safetensors",
    output:
        onnx="results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/lesionmap.onnx",
        check="results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/engine_check.json",
    log:
        "logs/export_fold_model/{variant}/seed_{seed}/fold_{fold}.log",
    benchmark:
        "results/benchmarks/export_fold_model/{variant}/seed_{seed}/fold_{fold}.tsv"


use rule map_slide as map_held_out with:
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        tissue="results/tissue/{slide}.tif",
        stain="results/stain/matches/{slide}.json",
        choice=ancient("results/stain/reference/profile.json"),
        model=of_its_fold("lesionmap.safetensors"),
        onnx=of_its_fold("lesionmap.onnx"),
        check=of_its_fold("engine_check.json"),
    output:
        probability="results/experiments/variants/{variant}/{run}/lesions/{slide}/probability.ome.tif",
        scores="results/experiments/variants/{variant}/{run}/lesions/{slide}/scores.ome.tif",
        record="results/experiments/variants/{variant}/{run}/lesions/{slide}/inference.json",
    log:
        "logs/map_held_out/{variant}/{run}/{slide}.log",
    benchmark:
        "results/benchmarks/map_held_out/{variant}/{run}/{slide}.tsv"
    wildcard_constraints:
        run="seed_[0-9]+",
    group:
        shard("infer", 1 if REFINED else 5)
    resources:
        mem_mb=grows(8000),
        runtime=grows(1440 if REFINED else 60),
        gpu=1,
    params:
        map=of_variant(map_settings),


rule map_ensemble:
    """Map one slide that no fold holds with all models of a variant: their mean, and how far they differ."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        tissue="results/tissue/{slide}.tif",
        stain="results/stain/matches/{slide}.json",
        choice=ancient("results/stain/reference/profile.json"),
        models=of_all_folds("lesionmap.safetensors"),
        onnx=of_all_folds("lesionmap.onnx"),
        checks=of_all_folds("engine_check.json"),
    output:
        probability="results/experiments/variants/{variant}/ensemble/lesions/{slide}/probability.ome.tif",
        scores="results/experiments/variants/{variant}/ensemble/lesions/{slide}/scores.ome.tif",
        uncertainty="results/experiments/variants/{variant}/ensemble/lesions/{slide}/uncertainty.ome.tif",
        record="results/experiments/variants/{variant}/ensemble/lesions/{slide}/inference.json",
    log:
        "logs/map_ensemble/{variant}/{slide}.log",
    benchmark:
        "results/benchmarks/map_ensemble/{variant}/{slide}.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=grows(4000 + 1000 * N_MODELS),
        runtime=grows(1440 if REFINED else 30 * N_MODELS),
        gpu=1,
    params:
        max_unreadable_fraction=config["slides"]["max_unreadable_fraction"],
        map=of_variant(map_settings),
        code=code_digest("map_ensemble"),
    script:
        "../../scripts/map_ensemble.py"


use rule find_lesions as find_held_out_lesions with:
    input:
        info="results/slides/info/{slide}.json",
        tissue="results/tissue/{slide}.tif",
        scores="results/experiments/variants/{variant}/{run}/lesions/{slide}/scores.ome.tif",
        uncertainty=uncertainty_of,
    output:
        lesions="results/experiments/variants/{variant}/{run}/lesions/{slide}/lesions.tif",
        outlines="results/experiments/variants/{variant}/{run}/lesions/{slide}/lesions.geojson",
        table="results/experiments/variants/{variant}/{run}/lesions/{slide}/lesions.tsv",
        record="results/experiments/variants/{variant}/{run}/lesions/{slide}/lesions.json",
    log:
        "logs/find_held_out_lesions/{variant}/{run}/{slide}.log",
    benchmark:
        "results/benchmarks/find_held_out_lesions/{variant}/{run}/{slide}.tsv"
    params:
        lesions=of_variant(lesion_settings),


use rule evaluate_slide as evaluate_held_out with:
    input:
        info="results/slides/info/{slide}.json",
        scores="results/experiments/variants/{variant}/{run}/lesions/{slide}/scores.ome.tif",
        lesions="results/experiments/variants/{variant}/{run}/lesions/{slide}/lesions.tif",
        tissue="results/tissue/{slide}.tif",
        annotation=ancient("results/annotations/{slide}.geojson"),
        annotation_identity="results/annotations/identity/{slide}.json",
        second=ancient(if_second_reader("results/annotations/second/{slide}.geojson")),
        second_identity=if_second_reader("results/annotations/second/identity/{slide}.json"),
    output:
        "results/experiments/variants/{variant}/{run}/metrics/slides/{slide}.json",
    log:
        "logs/evaluate_held_out/{variant}/{run}/{slide}.log",
    benchmark:
        "results/benchmarks/evaluate_held_out/{variant}/{run}/{slide}.tsv"
