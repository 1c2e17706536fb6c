// Carries the precompiled headers.
int main() {}
