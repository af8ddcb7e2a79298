default = {"byId": lambda id: {"id": id}}
