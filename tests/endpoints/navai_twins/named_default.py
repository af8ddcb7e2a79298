def secret_password(a):
    return f"66_{a}"
