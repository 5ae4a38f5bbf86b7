"""What every config starts from: all keys, with values for a 7B LLaVA-1.5.

Another config calls `get_config()` here and changes values; it cannot add keys.
A budget is a string: "500" rows, "5%" of the rows, "2Mtok" training tokens.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The whole tree of settings, one section a stage."""
  cfg = ml_collections.ConfigDict()
  cfg.rng_seed = 0

  cfg.pool = ml_collections.ConfigDict()
  # Files or folders: LLaVA or LLaMA-Factory JSON or JSONL, Parquet, Arrow, WebDataset
  # tars, TFDS, packed or not; or a LLaVA-NeXT mixture in YAML. Patterns, lists and
  # commas: several.
  cfg.pool.data = config_dict.placeholder(object)
  # Of a folder with splits, those that are the pool: names with commas (train,val), or
  # all. A folder without splits is taken whole, and a file given by its name always.
  cfg.pool.splits = config_dict.FieldReference("train", field_type=object)
  # The folder of the image paths, or several (a list, or with commas).
  cfg.pool.images = config_dict.placeholder(object)
  # Links inside an image folder that lead out of it: follow, or refuse for a pool
  # of unknown origin.
  cfg.pool.links = "follow"
  cfg.pool.duplicate_ids = "keep"  # or "aside": keep the first row of an id only
  # Rows of the same conversation and image: keep, or aside to keep the first only.
  cfg.pool.duplicate_rows = "keep"
  # Of each row: auto, field:NAME, prefix:N (folders of the image's path), file, or
  # rule:PATTERN=NAME;... over the image's path and the file.
  cfg.pool.source = "auto"
  # A row of more than model.max_length tokens: cut, as LLaVA does, or "aside".
  cfg.pool.long_rows = "cut"
  cfg.pool.max_pixels = 64_000_000  # a larger image is set aside
  # A run stops before anything is replaced or trained when more than this share of
  # the pool's rows is set aside, or when the usable rows fall by more than this share
  # of those in the workdir's pool.parquet. 1.0 lets it go on.
  cfg.pool.most_aside = 0.2
  cfg.pool.most_lost = 0.1
  cfg.pool.demo = ml_collections.ConfigDict()  # a pool drawn by the project
  cfg.pool.demo.rows = 0  # 0 draws none; nor is one drawn where pool.data is given
  cfg.pool.demo.seed = 0
  cfg.pool.demo.wrong = 0.12  # share of rows with a wrong answer
  cfg.pool.demo.misaligned = 0.05  # share of rows with another row's image
  cfg.pool.demo.duplicates = 0.03  # share that repeat a row, its scene redrawn
  cfg.pool.demo.questions = 100  # evaluation questions a task

  cfg.prepare = ml_collections.ConfigDict()
  cfg.prepare.shard_rows = 4096  # of a file
  cfg.prepare.workers = 0  # processes; 0: one a core

  cfg.model = ml_collections.ConfigDict()
  # The base: a Hugging Face directory in LLaVA form. "demo" is the tiny one
  # that the package ships.
  cfg.model.path = "llava-hf/llava-1.5-7b-hf"
  cfg.model.dtype = "auto"  # float32 on CPU, bfloat16 on accelerators
  # What the backward pass recomputes: none, full (all of a block but its input) or
  # dots (all but its input and its matrix products).
  cfg.model.remat = "none"
  # The attention kernel: xla, cudnn (GPU, bfloat16), splash (TPU); auto takes the
  # device's own once it agrees with xla on the first batch.
  cfg.model.attention = "auto"
  cfg.model.conversation = "vicuna_v1"  # or plain, chatml, llama-2, chat (its own)
  # The date in chat templates that ask for today's, as Llama 3.1's does: the same for
  # all stages, days and machines, and for whoever asks the tuned model.
  cfg.model.chat_date = "2024-07-26"
  cfg.model.system = config_dict.placeholder(str)  # None: the template's own
  # A row's own system text stands in the template's place; False does as LLaVA does,
  # which writes the template's into every row.
  cfg.model.row_system = True
  # Special tokens of the base's tokenizer in a row's text. auto: those for content,
  # such as <box>, are tokens, and those that frame turns, images or texts are text;
  # none: all are text; or the names of those that are tokens, with commas.
  cfg.model.content_specials = config_dict.FieldReference("auto", field_type=object)
  # Images become squares by padding, as LLaVA-1.5 was trained; False does what
  # the base's image processor does (llava-hf's crops).
  cfg.model.pad_images = True
  cfg.model.max_length = 2048  # tokens of the longest row

  cfg.mesh = ml_collections.ConfigDict()
  cfg.mesh.data = -1  # -1: all devices that are left
  cfg.mesh.fsdp = 1
  cfg.mesh.tensor = 1

  cfg.log = ml_collections.ConfigDict()
  # Also event files in logs/, for which tensorboardX must be installed.
  cfg.log.tensorboard = False

  # The command align: stage 1, the projector alone on captions, LLaVA's recipe. It
  # is no part of a run; the conversation is `plain` there.
  cfg.align = ml_collections.ConfigDict()
  cfg.align.rows = "100%"
  _add_recipe(cfg.align)
  cfg.align.batch = 256
  cfg.align.learning_rate = 1e-3
  cfg.align.trainable = "projector"

  cfg.seed = ml_collections.ConfigDict()
  cfg.seed.rows = "5%"  # drawn at random
  _add_recipe(cfg.seed)

  cfg.score = ml_collections.ConfigDict()
  cfg.score.model = config_dict.placeholder(str)  # None: the seed stage's
  # A score table made elsewhere (a `scores/` folder): nothing is scored.
  cfg.score.table = config_dict.placeholder(str)
  cfg.score.reference = config_dict.placeholder(str)  # of the signal excess
  # Columns of the score table; loss is always there. These are from one pass;
  # visual, ifd and excess take a pass more each.
  cfg.score.signals = config_dict.FieldReference(
    "loss,loss_sum,perplexity,accuracy,entropy,el2n,grand", field_type=object
  )
  cfg.score.row_length = 2048  # tokens of a packed row
  cfg.score.batch_rows = 16  # packed rows a step
  cfg.score.part_rows = 8192  # pool rows a part, about
  cfg.score.share = True  # the tokens of one image between its samples
  cfg.score.threads = 2

  cfg.select = ml_collections.ConfigDict()
  # kl, grouped, random, stratified, top, middle, perplexity, el2n, grand, ifd,
  # visnec, d2, semdedup, k_center, facility_location, coincide, deita
  cfg.select.strategy = "kl"
  cfg.select.budget = "20%"
  cfg.select.signal = "loss"  # a column of the score table: the necessity
  cfg.select.kl_weight = 0.4  # lambda
  # kmeans, source, necessity, turns, truncated, has_image, any column of the
  # score table, and products such as "source*kmeans".
  cfg.select.groups = "kmeans"
  cfg.select.clusters = 0  # of k-means; 0: by the number of rows
  cfg.select.strata = 5  # of necessity
  # Target shares of the groups: tempered, pool, uniform, given (target_shares),
  # or like (those of the samples in like).
  cfg.select.target = "tempered"
  cfg.select.tempering = 0.5  # power of the pool share
  # By group name, a dict, JSON text or a JSON file; groups left out get 0.
  cfg.select.target_shares = config_dict.placeholder(object)
  cfg.select.like = config_dict.placeholder(object)  # rows, as force_in
  # Which rows are suspect: a number (the top share of each group's necessity), none,
  # quantile (0.15), gate (competence 0.6), tail_safe (of the top 0.2 what the seed
  # model gets wrong, in groups that it knows), mixture (the upper of two humps of each
  # group's loss, in groups that it knows), or by a model that has not seen the row:
  # probe (a head refitted on the embeddings) or thorough (two models, each tuned on
  # half of the pool by the seed's recipe, score the other half).
  cfg.select.bound = config_dict.FieldReference("mixture", field_type=object)
  cfg.select.competence = 0.0  # above 0: also what the seed gets wrong in groups
  # where it gets at least this share of the rows wholly right
  cfg.select.visual = False  # also rows that their image makes less likely
  # Above 0: also all but one of the rows of a group whose embeddings have a
  # cosine above this.
  cfg.select.duplicates = 0.0
  cfg.select.floor = 0.2  # of a group's proportional share
  cfg.select.cap = 1.0  # the most of a group's rows, as a share of them
  cfg.select.within = "uniform"  # or sample, top
  cfg.select.temperature = 0.2  # of within = "sample"
  # Rows to keep and to leave out: a list, "id,id,row=5,hash=...", or a file: ids.txt
  # or weights as export-selection writes them, an id a line, JSON or Parquet (ids, row
  # numbers, hashes, or whole records such as selected.json). An id stands for all rows
  # that have it.
  cfg.select.force_in = config_dict.placeholder(object)
  cfg.select.leave_out = config_dict.placeholder(object)
  # Selections of every budget and lambda beside the arms, from the same scores.
  cfg.select.sweep = ml_collections.ConfigDict()
  cfg.select.sweep.budgets = config_dict.placeholder(object)  # "5%,10%,20%"
  cfg.select.sweep.kl_weights = config_dict.placeholder(object)  # "0.2,0.4,1"
  # Closed loop: the settings of the main arm are those of the best of so many
  # candidates, 0 for no search. Alternatives are separated by commas; the settings
  # above are always among the candidates.
  cfg.select.search = ml_collections.ConfigDict()
  cfg.select.search.candidates = 0
  cfg.select.search.signal = config_dict.placeholder(object)  # "loss,el2n"
  cfg.select.search.kl_weight = config_dict.placeholder(object)  # "0.2,0.4,1"
  cfg.select.search.groups = config_dict.placeholder(object)  # "kmeans,source"
  cfg.select.search.tempering = config_dict.placeholder(object)  # "0,0.5,1"
  cfg.select.search.bound = config_dict.placeholder(object)  # "none,0.15,probe"
  # What they are compared on: a share of the pool, held out by content and never
  # selected, or question files, never those of evaluate.tasks.
  cfg.select.search.development = config_dict.FieldReference("10%", field_type=object)
  cfg.select.search.images = config_dict.placeholder(str)  # of these question files
  cfg.select.search.steps = 50  # of each candidate's first tune, by the recipe of tune
  # The best 1 / halving of the candidates go on, with halving times the steps.
  cfg.select.search.halving = 2
  # Above 1: the tuned model of the main arm scores the pool again, and so on.
  cfg.select.rounds = 1
  cfg.select.control = True  # tune and evaluate a random selection beside it

  cfg.export_selection = ml_collections.ConfigDict()
  cfg.export_selection.arm = "main"
  # Of verbatim, llava, llama_factory, ms_swift, trl, ids, weights and card (ids, scores
  # and config, to publish); None: the first two.
  cfg.export_selection.formats = config_dict.placeholder(object)

  cfg.tune = ml_collections.ConfigDict()
  _add_recipe(cfg.tune)

  cfg.evaluate = ml_collections.ConfigDict()
  # Files of questions, or a benchmark's: "a.jsonl;vqav2:questions.json,marks.json".
  cfg.evaluate.tasks = config_dict.placeholder(object)
  cfg.evaluate.images = config_dict.placeholder(object)  # None: the pool's folder
  cfg.evaluate.allow_leakage = False  # ask questions that also stand in the pool
  cfg.evaluate.rules = ()  # (task, regex over the question), first match
  cfg.evaluate.limit = 0  # questions, evenly over the tasks; 0 is all
  cfg.evaluate.batch = 64  # questions a step
  cfg.evaluate.max_new_tokens = 16

  # Of `compare`: arms/<strategy>-<budget>-<seed> for all of these, with `random` at
  # every budget always among them.
  cfg.compare = ml_collections.ConfigDict()
  cfg.compare.strategies = config_dict.FieldReference("kl", field_type=object)
  # Beside these, arms of select with other settings, each by a name of its own:
  # "open: bound=none; flat: kl_weight=100, floor=0", or a dict of dicts.
  cfg.compare.variants = config_dict.placeholder(object)
  cfg.compare.budgets = config_dict.FieldReference("5%,20%,50%", field_type=object)
  cfg.compare.seeds = config_dict.FieldReference("0,1,2", field_type=object)
  cfg.compare.full = True  # also tune on the whole pool, `full`, which takes longest
  # What is the same for all arms: "epochs" (tune.epochs) or "steps" (as many as
  # tune.epochs of the full pool take).
  cfg.compare.match = "epochs"
  cfg.compare.fresh_pools = False  # draw the demo pool anew with each seed

  # Devices that need not be there, for which `plan` compiles the train and the score
  # step: a TPU slice (v5p-8, v5e-16, v6e:4x8), or GPUs (h100-8), as an estimate.
  cfg.plan = ml_collections.ConfigDict()
  cfg.plan.topology = config_dict.placeholder(str)
  cfg.plan.mfu = 0.4  # share of the devices' bfloat16 peak that hours are told for

  cfg.report = ml_collections.ConfigDict()
  cfg.report.title = "MLLM-Selector"
  return cfg.lock()


def _add_recipe(section: ml_collections.ConfigDict) -> None:
  """LLaVA-1.5's fine-tuning recipe."""
  section.epochs = 1
  section.batch = 128  # samples a step, over all devices
  # A step's samples go through the model in so many parts, one after the other:
  # less memory, the same result.
  section.accumulate = 1
  section.learning_rate = 2e-5
  section.warmup = 0.03  # share of the steps
  section.weight_decay = 0.0
  section.b1 = 0.9
  section.b2 = 0.999
  section.clip = 1.0
  section.first_moment = "float32"  # Adam's; bfloat16 takes 2 bytes a parameter less
  section.trainable = "decoder"  # with the projector; or projector, all
  section.projector_learning_rate = config_dict.placeholder(float)  # None: the same
  # LoRA: adapters of the decoder's linear layers are trained in its place.
  section.lora = ml_collections.ConfigDict()
  section.lora.rank = 0  # 0: the decoder itself is trained
  section.lora.alpha = 256.0  # an adapter's output is multiplied by alpha / rank
  # As LLaVA: a step has samples with an image or without, not both.
  section.group_by_modality_length = False
  section.row_length = 2048  # tokens of a packed row
  section.save_every = 500  # steps; 0: only when stopped
  # Checkpoints that stay: the newest ones, and of those before them the ones with the
  # lowest mean training loss over the 50 steps up to each. An interrupted run goes on
  # from the newest; the model that is written is always that of the last step.
  section.keep = 1
  section.keep_best = 0
  # Above 0: a loss of so many times the mean of the 50 steps before ends the run.
  section.spike = 0.0
  section.threads = 2
