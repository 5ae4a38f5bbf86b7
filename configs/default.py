"""All settings, with values for a LLaVA-1.5 model of 7B parameters.

Another config calls `get_config()` here and changes values; it cannot add keys.
A budget is a string: "500" rows, "5%" of the rows, "2Mtok" (two million training
tokens), "3e18flops" of tuning, or "5%flops" of the FLOPs of tuning on all rows.
`placeholder(type)` is a setting that is None until a value is given.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Return all settings, one section per stage."""
  cfg = ml_collections.ConfigDict()
  cfg.rng_seed = 0  # the seed of everything that is drawn at random

  cfg.pool = ml_collections.ConfigDict()
  # The pool's files or folders: JSON or JSONL in the form of LLaVA, LLaMA-Factory and
  # others (docs/pools.md), Parquet, Arrow, WebDataset tars or TFDS, compressed or not;
  # or a LLaVA-NeXT mixture in YAML. Several are given by a pattern, by a list, or
  # separated by commas.
  cfg.pool.data = config_dict.placeholder(object)
  # Formats of your own, as module:class, separated by commas (docs/extending.md).
  cfg.pool.formats = config_dict.placeholder(object)
  # The splits of a folder that belong to the pool: names separated by commas
  # (train,val), or all. A folder without splits is read whole, and a file that is
  # named is always read.
  cfg.pool.splits = config_dict.FieldReference("train", field_type=object)
  # The folder that image paths are relative to, or several (a list, or separated by
  # commas).
  cfg.pool.images = config_dict.placeholder(object)
  # What to do with symbolic links that lead out of an image folder: follow, or refuse
  # (for a pool of unknown origin).
  cfg.pool.links = "follow"
  # Rows with the same id: keep, or aside (keep only the first).
  cfg.pool.duplicate_ids = "keep"
  # Rows with the same conversation and image: keep, or aside (keep only the first).
  cfg.pool.duplicate_rows = "keep"
  # How the source of a row is found: auto, field:NAME (a field of the record),
  # prefix:N (the first N folders of the image's path), file (the name of the file), or
  # rule:PATTERN=NAME;... (patterns over the image's path and the file).
  cfg.pool.source = "auto"
  # What to do with rows of more than model.max_length tokens: cut them, as LLaVA does,
  # or set them aside ("aside").
  cfg.pool.long_rows = "cut"
  cfg.pool.max_pixels = 64_000_000  # a row with a larger image is set aside
  # A row with more images is set aside; without a number, rows may have any number.
  cfg.pool.max_images = config_dict.placeholder(int)
  # How many frames of a video are taken as images, where the record lists the frames'
  # image files. Without a number, rows with a video are set aside. No video is decoded.
  cfg.pool.video_frames = config_dict.placeholder(int)
  # A run stops before it replaces or trains anything if more than this share of the
  # rows is set aside. 1.0 turns the limit off.
  cfg.pool.most_aside = 0.2
  # It also stops if the number of usable rows has fallen by more than this share since
  # the workdir's pool.parquet was written.
  cfg.pool.most_lost = 0.1
  cfg.pool.demo = ml_collections.ConfigDict()  # a pool that is drawn
  cfg.pool.demo.rows = 0  # rows to draw; 0: no pool is drawn. pool.data has precedence
  cfg.pool.demo.seed = 0  # the seed of the drawing
  cfg.pool.demo.wrong = 0.12  # share of rows with a wrong answer
  cfg.pool.demo.misaligned = 0.05  # share of rows with another row's image
  cfg.pool.demo.duplicates = 0.03  # share that repeat a row, with its scene drawn again
  cfg.pool.demo.questions = 100  # evaluation questions per task

  cfg.prepare = ml_collections.ConfigDict()
  cfg.prepare.shard_rows = 4096  # rows of a file
  cfg.prepare.workers = 0  # processes; 0: one per core

  cfg.model = ml_collections.ConfigDict()
  # The base: a Hugging Face directory or hub name of a model (docs/families.md). "demo"
  # is the tiny model that the package ships.
  cfg.model.path = "llava-hf/llava-1.5-7b-hf"
  # The type of parameters and activations. auto: float32 on CPU, bfloat16 on
  # accelerators.
  cfg.model.dtype = "auto"
  # What the backward pass recomputes (rematerialisation): none, full (everything in a
  # block except its input) or dots (everything except its input and matrix products).
  cfg.model.remat = "none"
  # The attention kernel: xla, cudnn (GPU, bfloat16) or splash (TPU). auto uses the
  # device's own kernel if it agrees with xla on the first batch.
  cfg.model.attention = "auto"
  # The conversation template: vicuna_v1, plain, chatml, llama-2, or chat, the chat
  # template of the tokenizer. auto: chat where the tokenizer has one, else vicuna_v1.
  cfg.model.conversation = "auto"
  # The date that chat templates write which ask for today's, as Llama 3.1's does. It is
  # the same for all stages, days and machines, and in the exported template.
  cfg.model.chat_date = "2024-07-26"
  cfg.model.system = config_dict.placeholder(str)  # system text; None: the template's
  # True: a row's own system text replaces the template's. False: every row has the
  # template's text, as in LLaVA.
  cfg.model.row_system = True
  # Special tokens of the base's tokenizer in a row's text. auto: those for content,
  # such as <box>, are tokens, and those that frame turns, images or texts are plain
  # text. none: all are plain text. Otherwise the names of those that are tokens,
  # separated by commas.
  cfg.model.content_specials = config_dict.FieldReference("auto", field_type=object)
  # How boxes that records state in `objects` are written into the text. auto: as the
  # base's family does. Or qwen2, qwen2.5, qwen2.5-marks, qwen3, internvl, llava.
  cfg.model.box_form = "auto"
  # True: images are padded to squares, as in the training of LLaVA-1.5. False: the
  # base's image processor decides (that of llava-hf crops them).
  cfg.model.pad_images = True
  # Into how many tiles an image is cut at most, where the base cuts images; the tile
  # of the whole image is not counted. Without a number, the base decides. Refused for
  # Qwen-VL, which cuts no tiles.
  cfg.model.max_tiles = config_dict.placeholder(int)
  # Larger images are made smaller, to this number of pixels (width x height). Nothing
  # to bases whose images all become one square. For Qwen-VL, this lowers max_pixels
  # of its own image processor, so that no image is resized twice.
  cfg.model.resize_pixels = config_dict.placeholder(int)
  cfg.model.max_length = 2048  # most tokens of a row (pool.long_rows)

  cfg.mesh = ml_collections.ConfigDict()
  cfg.mesh.data = -1  # devices that share the rows; -1: all remaining devices
  cfg.mesh.fsdp = 1  # devices that share the rows and the parameters
  cfg.mesh.tensor = 1  # devices that share the heads and widths of each layer

  cfg.log = ml_collections.ConfigDict()
  # Experiment trackers that also get curves, results and settings: tensorboard, wandb
  # (offline) or mlflow (files), separated by commas. All write to logs/.
  cfg.log.trackers = config_dict.placeholder(object)

  # The command `align`: LLaVA's stage 1, which trains only the projector, on captions.
  # It is not a part of a run. LLaVA uses the conversation template `plain` for it.
  cfg.align = ml_collections.ConfigDict()
  cfg.align.rows = "100%"  # rows of the pool to train on, drawn at random
  _add_recipe(cfg.align)
  cfg.align.batch = 256
  cfg.align.learning_rate = 1e-3
  cfg.align.trainable = "projector"

  cfg.seed = ml_collections.ConfigDict()
  cfg.seed.rows = "5%"  # rows of the pool to train on, drawn at random
  _add_recipe(cfg.seed)

  cfg.score = ml_collections.ConfigDict()
  cfg.score.model = config_dict.placeholder(
    str
  )  # scores the pool; None: the seed model
  # A score table made elsewhere (a `scores/` folder), which is used instead of scoring.
  cfg.score.table = config_dict.placeholder(str)
  cfg.score.reference = config_dict.placeholder(
    str
  )  # a model; the signal excess needs one
  # Columns of the score table; loss is always included. The ones below are computed in
  # one pass; visual, ifd and excess need one further pass each. A signal of your own is
  # named as module:function (docs/extending.md).
  cfg.score.signals = config_dict.FieldReference(
    "loss,loss_sum,perplexity,accuracy,entropy,el2n,grand", field_type=object
  )
  cfg.score.row_length = 2048  # tokens of a packed row
  cfg.score.batch_rows = 16  # packed rows per step
  cfg.score.part_rows = 8192  # approximate number of pool rows per part
  cfg.score.share = True  # True: compute an image's tokens once for all of its samples
  cfg.score.threads = 2  # threads that read images

  cfg.select = ml_collections.ConfigDict()
  # A strategy of docs/method.md (kl, random, d2, ...), or one of your own, as
  # module:function (docs/extending.md).
  cfg.select.strategy = "kl"
  # How much is kept: "20%" of the rows, "500" rows, "2Mtok" (training tokens), or
  # "50%ref" (of the number of rows of select.reference).
  cfg.select.budget = "20%"
  cfg.select.signal = "loss"  # the column of the score table that is the necessity
  # Among which rows the necessity is ranked: pool (all of them), or those that have the
  # same source, format (of their answers: words, phrases, sentences or texts, in one
  # round or several) or other column. A source that is hard, or whose answers are long,
  # then gains nothing by that.
  cfg.select.normalise = "pool"
  cfg.select.kl_weight = 0.4  # the objective's lambda (docs/method.md)
  # What forms the groups: kmeans, source, format, necessity, turns, truncated,
  # has_image, any column of the score table, or a product such as "source*kmeans".
  cfg.select.groups = "kmeans"
  cfg.select.clusters = 0  # of k-means: how many; 0: by the number of rows
  cfg.select.strata = 5  # groups by necessity, where select.groups names necessity
  # Target shares of the groups: tempered, pool, uniform, given (select.target_shares)
  # or like (the shares among the rows of select.like).
  cfg.select.target = "tempered"
  cfg.select.tempering = 0.5  # exponent of the pool share, for the target tempered
  # Shares by group name: a dict, JSON text or a JSON file. Other groups get 0.
  cfg.select.target_shares = config_dict.placeholder(object)
  cfg.select.like = config_dict.placeholder(
    object
  )  # of target like: rows, as in force_in
  # The rule for suspect rows, which are left out because their answer is probably wrong
  # (docs/method.md), or one of your own, as module:function (docs/extending.md):
  #   a number   the share of each group with the highest necessity
  #   none       no row is suspect
  #   quantile   the same as 0.15
  #   gate       the same as select.competence = 0.6
  #   tail_safe  of the top 0.2 of a group's necessity, the rows that the seed model
  #              gets wrong, in groups that it knows
  #   mixture    the upper of two Gaussians that are fitted to a group's loss, in groups
  #              that the seed model knows
  #   probe      as mixture, on the loss of a head that is refitted to the embeddings
  #              and has not seen the row
  #   thorough   as mixture, on the loss of one of two models, each of which is tuned on
  #              half of the pool by the seed's recipe and scores the other half
  cfg.select.bound = config_dict.FieldReference("mixture", field_type=object)
  # Above 0: rows are also suspect if the seed model gets them wrong, in groups of which
  # it gets at least this share wholly right.
  cfg.select.competence = 0.0
  cfg.select.visual = False  # True: rows that their image makes less likely are suspect
  # Above 0: of the rows of a group whose embeddings have a cosine above this, all but
  # one are also suspect.
  cfg.select.duplicates = 0.0
  cfg.select.floor = 0.2  # the least of a group, as a share of its proportional share
  cfg.select.cap = 1.0  # the most of a group, as a share of its rows
  # The most rows that are kept of each value of a column, such as "image=2" or
  # "image=2, source=10%" (of the rows of each source). The columns are image (by its
  # content), and those of select.groups. Further rows of a value are passed over.
  cfg.select.most = config_dict.placeholder(object)
  # The least rows of each value that has so many, likewise; they are reserved first.
  cfg.select.least = config_dict.placeholder(object)
  # How rows are chosen inside a group: uniform (at random), sample (at random, with a
  # preference for high necessity), top (the highest necessity) or cover (so that the
  # rows of the group, above all those of high necessity, have a similar kept row).
  cfg.select.within = "uniform"
  cfg.select.temperature = 0.2  # of within = "sample"; near 0 it is like "top"
  # Rows to keep in any case: a list, "id,id,row=5,hash=...", or a file, which may be
  # ids.txt or weights as export-selection writes them, one id per line, JSON or Parquet
  # (with ids, row numbers, hashes, or whole records such as selected.json). An id means
  # all rows that have it.
  cfg.select.force_in = config_dict.placeholder(object)
  cfg.select.leave_out = config_dict.placeholder(object)  # rows to leave out, likewise
  # The mixture that you train on today: rows of the pool, given as in force_in, which
  # `compare` makes the arm `reference`. Budgets can be relative to its number of rows:
  # "50%ref". Rows that are set aside or left out do not count.
  # A selection that others published is given in the same way. With "FILE@COLUMN", its
  # rows have scores, in that column of the entries, and the strategy `reference` takes
  # the highest first ("FILE@-COLUMN": the lowest). "FILE#COLUMN" names the column of
  # row numbers, if it is not `row`; of bare numbers it says that they are rows.
  cfg.select.reference = config_dict.placeholder(object)
  # The share of the reference's entries that may match no row of the pool. They are
  # counted and left out.
  cfg.select.most_missing = 0.0
  # Further selections from the same scores, one for each budget and lambda (`sweep/`);
  # each is also an arm, which `--arm` can name.
  cfg.select.sweep = ml_collections.ConfigDict()
  # Budgets of the sweep, such as "5%,10%,20%".
  cfg.select.sweep.budgets = config_dict.placeholder(object)
  # Values of select.kl_weight of the sweep, such as "0.2,0.4,1".
  cfg.select.sweep.kl_weights = config_dict.placeholder(object)
  cfg.select.search = ml_collections.ConfigDict()
  # Searching: this many candidates are compared by short tunes, and the best makes the
  # main arm; 0 turns the search off. Random rows and the settings above are always
  # among the candidates, so that 2 asks whether selecting pays on this pool at all.
  # What is to be tried is separated by commas.
  cfg.select.search.candidates = 0
  cfg.select.search.strategy = config_dict.placeholder(object)  # to try: "d2,grouped"
  cfg.select.search.signal = config_dict.placeholder(object)  # to try: "loss,el2n"
  cfg.select.search.kl_weight = config_dict.placeholder(object)  # to try: "0.2,0.4,1"
  cfg.select.search.groups = config_dict.placeholder(object)  # to try: "kmeans,source"
  cfg.select.search.tempering = config_dict.placeholder(object)  # to try: "0,0.5,1"
  cfg.select.search.bound = config_dict.placeholder(object)  # to try: "none,0.15,probe"
  # What candidates are measured on: a share of the pool, which is held out by content
  # and never selected, or question files, which must not be those of evaluate.tasks.
  cfg.select.search.development = config_dict.FieldReference("10%", field_type=object)
  cfg.select.search.images = config_dict.placeholder(str)  # folders of their images
  # What all trials together may cost, as a share of the FLOPs of tuning on the full
  # pool, held-out losses of bounds not counted. It says how long the tunes are.
  cfg.select.search.cost = 0.05
  # Steps of the first tunes; without a number, `cost` decides.
  cfg.select.search.steps = config_dict.placeholder(int)
  # Successive halving: the best 1 / halving of the candidates are tuned again with
  # halving times as many steps. The last one is tuned beside random rows.
  cfg.select.search.halving = 2
  # The level of the interval of that last difference, in which the rows of both are
  # paired. Random rows are replaced only if the whole interval is above 0.
  cfg.select.search.level = 0.9
  # Above 1: the tuned model of the main arm scores the pool for another selection, and
  # so on.
  cfg.select.rounds = 1
  cfg.select.control = (
    True  # True: also tune and evaluate a random selection (arms/random)
  )

  cfg.export_selection = ml_collections.ConfigDict()
  cfg.export_selection.arm = "main"  # the arm to export, unless --arm names one
  # Some of verbatim, llava, llama_factory, ms_swift, trl, ids, weights and card (ids,
  # scores and config, to publish), separated by commas. None: the first two.
  cfg.export_selection.formats = config_dict.placeholder(object)

  cfg.tune = ml_collections.ConfigDict()
  _add_recipe(cfg.tune)

  cfg.evaluate = ml_collections.ConfigDict()
  # Files of questions, or a benchmark with its files (docs/evaluation.md):
  # "a.jsonl;vqav2:questions.json,annotations.json".
  cfg.evaluate.tasks = config_dict.placeholder(object)
  # The folders of the questions' images; None: the pool's.
  cfg.evaluate.images = config_dict.placeholder(object)
  # Metrics of your own that question files may name, as module:function, separated by
  # commas (docs/extending.md).
  cfg.evaluate.metrics = config_dict.placeholder(object)
  cfg.evaluate.allow_leakage = False  # True: ask questions that are in the pool
  # Tasks by (task, regex over the question); the first match decides.
  cfg.evaluate.rules = ()
  cfg.evaluate.limit = 0  # most questions, evenly over the tasks; 0: all
  cfg.evaluate.batch = 64  # questions per step
  cfg.evaluate.max_new_tokens = 16  # most tokens of an answer

  # The command `compare` makes an arm, arms/<strategy>-<budget>-<seed>, for every
  # combination of these; `random` is always included at every budget, and so is an
  # arm `reference` if select.reference is given.
  cfg.compare = ml_collections.ConfigDict()
  # The strategies that are compared, separated by commas.
  cfg.compare.strategies = config_dict.FieldReference("kl", field_type=object)
  # Further arms with other settings of `select`, each with a name:
  # "open: bound=none; flat: kl_weight=100, floor=0", or a dict of dicts.
  cfg.compare.variants = config_dict.placeholder(object)
  # Selections that others published, each with a name: "icons=icons.json,
  # less=less.csv@influence", in the forms of select.reference. Each is an arm of its
  # own number of rows, beside random rows of that number; with scores, it is an arm of
  # every budget.
  cfg.compare.published = config_dict.placeholder(object)
  # The budgets, as in select.budget, separated by commas; also "100%icons", relative to
  # the number of rows of a published selection.
  cfg.compare.budgets = config_dict.FieldReference("5%,20%,50%", field_type=object)
  # The seeds (rng_seed) of which every arm is made once, separated by commas.
  cfg.compare.seeds = config_dict.FieldReference("0,1,2", field_type=object)
  cfg.compare.full = (
    True  # True: also tune on the whole pool (`full`), the costliest arm
  )
  # What all arms have in common: "epochs" (tune.epochs) or "steps" (as many steps as
  # tune.epochs take on the full pool; on the reference, if there is one and no `full`).
  cfg.compare.match = "epochs"
  cfg.compare.fresh_pools = False  # True: each seed draws a demo pool of its own

  cfg.plan = ml_collections.ConfigDict()
  # The devices for which `plan` compiles the training and the scoring step, which need
  # not be present: TPU slices (v4-8, v5p-8, v5e-16, v6e:4x8), or GPUs (rtx4090-1,
  # l40s-4, a100-40gb-8, a100-80gb-8, h100-8, h200-1, b200-8). Of several, separated by
  # commas, the cheapest is taken that the run fits. The result is an estimate for GPUs
  # if jax's CUDA plug-in is not installed.
  cfg.plan.topology = config_dict.placeholder(str)
  # The number of rows, if no pool has been checked.
  cfg.plan.rows = config_dict.placeholder(int)
  # The mean number of tokens of a row, with those of its images; None: 200 beside them.
  cfg.plan.tokens = config_dict.placeholder(float)
  # The mean number of images of a row; 0.9 stands for one in nine of ten rows.
  cfg.plan.images = 1.0
  cfg.plan.image_size = "640x480"  # the pixels of an image: width x height
  # The pool_summary.json of a pool that was checked elsewhere, in place of these four.
  cfg.plan.summary = config_dict.placeholder(str)
  # The model FLOPs utilisation that a training showed on these devices. Without it,
  # executed FLOPs are taken to run at .25 to .4 of the peak.
  cfg.plan.mfu = config_dict.placeholder(float)
  # What a device costs for an hour: a number, or prices by kind ("h100=2.5,v5e=1.2").
  cfg.plan.price = config_dict.placeholder(object)

  cfg.report = ml_collections.ConfigDict()
  cfg.report.title = "MLLM-Selector"  # the title of report.html and compare.html
  return cfg.lock()


def _add_recipe(section: ml_collections.ConfigDict) -> None:
  """Add the settings of a training, with the values of LLaVA-1.5's fine-tuning."""
  section.epochs = 1  # how often each row is seen
  section.batch = 128  # samples per step, over all devices
  # Gradient accumulation: a batch is processed in this many parts, one after the other.
  # It needs less memory and gives the same result.
  section.accumulate = 1
  section.learning_rate = 2e-5  # the highest, after warm-up; then a cosine to 0
  section.warmup = 0.03  # share of the steps in which the learning rate rises
  section.weight_decay = 0.0  # decoupled, as in AdamW
  section.b1 = 0.9  # Adam's decay of the first moment
  section.b2 = 0.999  # Adam's decay of the second moment
  section.clip = 1.0  # largest global norm of the gradient
  # The type of Adam's first moment; bfloat16 saves 2 bytes per parameter.
  section.first_moment = "float32"
  # What is trained: decoder (and projector), decoder_only, projector, or all.
  section.trainable = "decoder"
  # The projector's learning rate; None: the same.
  section.projector_learning_rate = config_dict.placeholder(float)
  section.lora = ml_collections.ConfigDict()
  # LoRA: adapters of this rank are trained instead of linear layers; 0: no LoRA.
  section.lora.rank = 0
  section.lora.alpha = 256.0  # an adapter's output is multiplied by alpha / rank
  # What has adapters: decoder, tower, projector, several of them, or all. `trainable`
  # must name them; a projector that it names beside them is trained whole. All three:
  # modules = "all" and trainable = "all".
  section.lora.modules = "decoder"
  # True, as in LLaVA: all samples of a step have an image, or none has.
  section.group_by_modality_length = False
  section.row_length = 2048  # tokens of a packed row
  section.save_every = 500  # steps between checkpoints; 0: only when stopped
  # How many of the newest checkpoints stay. An interrupted run continues from the
  # newest. The model that is written is that of the last step.
  section.keep = 1
  # How many of the older ones stay: those with the lowest mean training loss over the
  # 50 steps before them.
  section.keep_best = 0
  # Above 0: the run ends if a loss exceeds this many times the mean of the 50 steps
  # before it.
  section.spike = 0.0
  section.threads = 2  # threads that read images
