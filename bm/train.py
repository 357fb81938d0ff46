from dora import hydra_main
@hydra_main(config_path="../conf", config_name="config", version_base="1.3")
def main(args):
    pass
