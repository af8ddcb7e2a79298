def legacy(a):
    return ["legacy", a]
