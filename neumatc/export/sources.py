"""The C that `neumatc.export.header` puts together: one text for each step of an evaluation."""

# x in the cube; 1 where p is outside the box.
CUBE = """\
static inline int ${name}_cube(const double *p, double *x)
{
    for (int i = 0; i < $d; i++) {
        const double low = ${name}_lower[i], up = ${name}_upper[i], a = ${name}_start[i], b = ${name}_stop[i];
        double q = p[i];
        if (${name}_periodic[i] && (q < low || q > up)) q -= floor((q - low) / (up - low)) * (up - low);
        if (!(q >= ${name}_least[i] && q <= ${name}_most[i])) return 1;
        if (${name}_log[i]) q = log(q);
        x[i] = ((q - a) - (b - q)) / (b - a);
    }
    return 0;
}"""

# A layer of a network, with sines or without.
LAYER = """\
static inline void ${name}_layer(const double *W, const double *b, int rows, int columns, const double *x, double *y,
                                 int sines)
{
    for (int i = 0; i < rows; i++) {
        double sum = b[i];
        for (int j = 0; j < columns; j++) sum += W[(long)i * columns + j] * x[j];
        y[i] = sines ? sin(sum) : sum;
    }
}"""

# The piece of x: of one parameter they are in order, of several there is a tree of cuts.
SEARCH = """\
    for (int last = $pieces - 1; q < last;) {
        const int middle = (q + last + 1) / 2;
        if (x[0] >= ${name}_low[middle]) q = middle; else last = middle - 1;
    }
"""
DESCEND = """\
    int branch = 0;
    while (branch >= 0) branch = ${name}_children[2 * branch + (x[${name}_axis[branch]] >= ${name}_cut[branch])];
    q = -1 - branch;
"""

# Products over the axes of the polynomials of a piece.
WEIGHTS = """\
        const double *w = ${name}_bary + k * $most;
"""
PIECES = """\
    int q = 0, n = 1;
${find}    phi[0] = 1;
    for (int i = 0; i < $d; i++) {
        const int k = q * $d + i, m = ${name}_counts[k];
        const double low = ${name}_low[k], high = ${name}_high[k], b = ${name}_bend[k], *at = ${name}_nodes + k * $most;
${weights}        double f[$most], t = ((x[i] - low) - (high - x[i])) / (high - low);
        if (b > 0) t = sin(b * t) / sin(b);
        for (int j = 0; j < m; j++) {
            f[j] = $factor;
            for (int l = 0; l < m; l++) if (l != j) f[j] *= t - at[l];
        }
        for (int j = n - 1; j >= 0; j--) {
            const double value = phi[j];
            for (int l = m - 1; l >= 0; l--) phi[j * m + l] = value * f[l];
        }
        n *= m;
    }
${last}    *count = n;
    return ${name}_first[q];
"""

# Barycentric form: divided by the sum; complex weights give real parts, then imaginary ones.
REAL = """\
    double sum = 0;
    for (int j = 0; j < n; j++) sum += phi[j] *= ${name}_bary[j];
    for (int j = 0; j < n; j++) phi[j] /= sum;
"""
COMPLEX = """\
    double a = 0, b = 0;
    for (int j = 0; j < n; j++) {
        a += ${name}_bary[j] * phi[j];
        b += ${name}_imaginary[j] * phi[j];
    }
    for (int j = 0; j < n; j++) {
        const double re = ${name}_bary[j] * phi[j], im = ${name}_imaginary[j] * phi[j];
        phi[j] = (re * a + im * b) / (a * a + b * b);
        phi[n + j] = (im * a - re * b) / (a * a + b * b);
    }
    n *= 2;
"""

# Products over the axes of functions of one parameter.
PRODUCTS = """\
    double u[$d][$count];
${declared}    for (int i = 0; i < $d; i++) {
${table}    }
    for (int k = 0; k < $rows; k++) {
        $psi[k] = 1;
        for (int i = 0; i < $d; i++) $psi[k] *= u[i][${name}_indices[k * $d + i]];
    }
${end}"""
NEWTON = """\
        double product = 1;
        for (int k = 0; k < $count; k++) {
            u[i][k] = product * ${name}_scale[i * $count + k];
            product *= x[i] - ${name}_nodes[i * $count + k];
        }
"""
WAVES = """\
        double t = ${cast}x[i], b = ${name}_bend[0];
        if (!${name}_periodic[i] && b > 0) t = ${cast}(sin(b * t) / sin(b));
        for (int k = 0; k < $count; k++)
            u[i][k] = ${name}_periodic[i] ? sin(${name}_frequencies[k] * t + ${name}_phases[k])
                : k < 2 ? (k ? t : 1) : 2 * t * u[i][k - 1] - u[i][k - 2];
"""
LAST = """\
    ${prefix}_layer(${name}_weight_out, ${name}_bias_out, $rows, $columns, psi, phi, 0);
    *count = $rows;
    return 0;
"""

# The product with the latent tensor.
PRODUCT = """\
static inline void ${name}_product(const ${name}_real *C, const double *phi, int count, int size, ${name}_real *X)
{
    for (int i = 0; i < size; i++) X[i] = 0;
    for (int j = 0; j < count; j++)
        for (int i = 0; i < size; i++) X[i] += (${name}_real)phi[j] * C[(long)j * size + i];
}"""

# Columns in the order of their values.
SORT = """\
static inline void ${name}_sort(const ${name}_real *S, const ${name}_real *U, const ${name}_real *Vh,
                                ${name}_real *values, ${name}_real *left, ${name}_real *right)
{
    double rounding = 0, apart[$J], worth[$J];
    int order[$J], wrong = $always;
    for (int j = 0; j < $J; j++) if (fabs((double)S[j]) > rounding) rounding = fabs((double)S[j]);
    rounding *= 1000 * $eps;
    for (int j = 0; j < $J; j++) {
        apart[j] = S[j] + ($signed ? -rounding : rounding) * j;
        worth[j] = $a * fabs(apart[j] - $center) + $b * apart[j];
        order[j] = j;
        if ($signed) wrong |= j + 1 < $J ? S[j + 1] > S[j] : S[j] < 0;
        else wrong |= j + 1 < $J && S[j + 1] < S[j];
    }
    for (int pass = 0; pass < 2 && wrong; pass++)  /* the best first; then those in order */
        for (int j = 1; j < (pass ? $k : $J); j++)
            for (int i = j; i > 0; i--) {
                const double v = apart[order[i]], w = apart[order[i - 1]];
                if (pass ? ($signed ? fabs(v) > fabs(w) : v < w) : worth[order[i]] > worth[order[i - 1]]) {
                    const int other = order[i];
                    order[i] = order[i - 1];
                    order[i - 1] = other;
                }
            }
    for (int j = 0; j < $k; j++) {
        const int own = order[j];
        const double sign = wrong && $signed && S[own] + rounding < 0 ? -1 : 1;
        values[j] = wrong && $signed && S[own] < 0 ? -S[own] : S[own];
        for (int i = 0; i < $m; i++)
            for (int c = 0; c < $pair; c++)
                left[(i * $k + j) * $pair + c] = (${name}_real)(sign * U[(i * $J + own) * $pair + c]);
        for (int i = 0; right && i < $n * $pair; i++) right[j * $n * $pair + i] = Vh[own * $n * $pair + i];
    }
    for (int j = 1; j < $k && wrong; j++)  /* values that are one up to rounding */
        for (int i = j; i > 0 && ($signed ? values[i] > values[i - 1] : values[i] < values[i - 1]); i--) {
            const ${name}_real other = values[i];
            values[i] = values[i - 1];
            values[i - 1] = other;
        }
}"""

# Columns of length one.
UNIT = """\
static inline void ${name}_unit(${name}_real *X, int rows, int columns, int pair)
{
    for (int j = 0; j < columns; j++) {
        double size = 0;
        for (int i = 0; i < rows * pair; i++) {
            const double one = X[(i / pair * columns + j) * pair + i % pair];
            size += one * one;
        }
        for (int i = 0; i < rows * pair && size > 0; i++)
            X[(i / pair * columns + j) * pair + i % pair] /= (${name}_real)sqrt(size);
    }
}"""

# Rows (axis 0) or columns of a complex matrix turned by phases.
TURN = """\
static inline void ${name}_turn(${name}_real *X, int rows, int columns, const double *slopes, int axis, const double *x)
{
    for (int k = 0; k < (axis ? columns : rows); k++) {
        double angle = 0;
        for (int i = 0; i < $d; i++) angle += slopes[k * $d + i] * x[i];
        const double c = cos(angle), s = sin(angle);
        for (int i = 0; i < (axis ? rows : columns); i++) {
            ${name}_real *z = X + 2 * (axis ? i * columns + k : k * columns + i);
            const double re = z[0], im = z[1];
            z[0] = (${name}_real)(re * c - im * s);
            z[1] = (${name}_real)(re * s + im * c);
        }
    }
}"""
