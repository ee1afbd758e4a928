"""The C that `neumatc.export.header` puts together: one text for each step of an evaluation."""

# x in the cube; 1 where p is outside the box.
CUBE = """\
static inline int ${name}_cube(const double *p, double *x)
{
    for (int i = 0; i < $d; i++) {
        double q = p[i], a = ${name}_start[i], b = ${name}_stop[i];
${wrap}        if (!(q >= ${name}_least[i] && q <= ${name}_most[i])) return 1;
${log}        x[i] = ((q - a) - (b - q)) / (b - a);
    }
    return 0;
}"""
WRAP = """\
        const double low = ${name}_lower[i], up = ${name}_upper[i];
        if (${name}_periodic[i] && (q < low || q > up)) q -= floor((q - low) / (up - low)) * (up - low);
"""
LOG = """\
        if (${name}_log[i]) q = log(q);
"""

# A layer of a network, with sines or without.
LAYER = """\
static inline void ${name}_layer(const double *W, const double *b, int m, int n, const double *x, double *y, int sines)
{
    for (int i = 0; i < m; i++) {
        double sum = b[i];
        for (int j = 0; j < n; j++) sum += W[(long)i * n + j] * x[j];
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
PIECES = """\
    int q = 0, n = 1;
${find}    phi[0] = 1;
    for (int i = 0; i < $d; i++) {
        const int k = q * $d + i, m = ${name}_counts[k];
        const double low = ${name}_low[k], high = ${name}_high[k], b = ${name}_bend[k], *at = ${name}_nodes + k * $most;
        const double *w = ${name}_bary + k * $most;
        double f[$most], t = ((x[i] - low) - (high - x[i])) / (high - low);
        if (b > 0) t = sin(b * t) / sin(b);
        for (int j = 0; j < m; j++) {
            f[j] = w[j];
            for (int l = 0; l < m; l++) if (l != j) f[j] *= t - at[l];
        }
        for (int j = n - 1; j >= 0; j--) {
            const double value = phi[j];
            for (int l = m - 1; l >= 0; l--) phi[j * m + l] = value * f[l];
        }
        n *= m;
    }
    *count = n;
    return ${name}_first[q];
"""

# Barycentric form of one parameter: divided by the sum; complex weights give real parts, then imaginary ones.
REAL = """\
    double sum = 0;
    for (int j = 0; j < $most; j++) {
        phi[j] = ${name}_bary[j];
        for (int l = 0; l < $most; l++) if (l != j) phi[j] *= x[0] - ${name}_nodes[l];
        sum += phi[j];
    }
    for (int j = 0; j < $most; j++) phi[j] /= sum;
    *count = $most;
    return 0;
"""
COMPLEX = """\
    double a = 0, b = 0;
    for (int j = 0; j < $most; j++) {
        phi[j] = 1;
        for (int l = 0; l < $most; l++) if (l != j) phi[j] *= x[0] - ${name}_nodes[l];
        a += ${name}_bary[j] * phi[j];
        b += ${name}_imaginary[j] * phi[j];
    }
    for (int j = 0; j < $most; j++) {
        const double re = ${name}_bary[j] * phi[j], im = ${name}_imaginary[j] * phi[j];
        phi[j] = (re * a + im * b) / (a * a + b * b);
        phi[$most + j] = (im * a - re * b) / (a * a + b * b);
    }
    *count = 2 * $most;
    return 0;
"""

# Products over the axes of functions of one parameter.
PRODUCTS = """\
    double u[$d][$count]${declared};
    for (int i = 0; i < $d; i++) {
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
    return *count = $rows, 0;
"""

# The product with the latent tensor.
PRODUCT = """\
static inline void ${name}_product(const ${name}_real *C, const double *phi, int count, int size, ${name}_real *X)
{
    for (int i = 0; i < size; i++) X[i] = 0;
    for (int j = 0; j < count; j++)
        for (int i = 0; i < size; i++) X[i] += (${name}_real)phi[j] * C[(long)j * size + i];
}"""

# The places of the values that are worth most, in the order that they are to have.
ORDER = """\
static inline void ${name}_order(const double *s, int *order)
{
    double worth[$J];
    for (int j = 0; j < $J; j++) {
        worth[j] = $a * fabs(s[j] - $center) + $b * s[j];
        order[j] = j;
    }
    for (int pass = 0; pass < 2; pass++)
        for (int j = 1; j < (pass ? $k : $J); j++)
            for (int i = j; i > 0; i--) {
                const int own = order[i], other = order[i - 1];
                if (!(pass ? ($signed ? fabs(s[own]) > fabs(s[other]) : s[own] < s[other]) : worth[own] > worth[other]))
                    break;
                order[i] = other;
                order[i - 1] = own;
            }
}"""

# Columns in the order of their values, where they are not.
SORT = """\
static inline void ${name}_sort(const ${name}_real *S, const ${name}_real *U, const ${name}_real *Vh,
                                ${name}_real *values, ${name}_real *left, ${name}_real *right)
{
    double rounding = 0, apart[$J];
    int order[$J], wrong = $always;
    for (int j = 0; j < $J; j++) if (fabs((double)S[j]) > rounding) rounding = fabs((double)S[j]);
    rounding *= $equal;
    for (int j = 0; j < $J; j++) {
        apart[j] = S[j] + ($signed ? -rounding : rounding) * j;
        order[j] = j;
        if ($signed) wrong |= j + 1 < $J ? S[j + 1] > S[j] : S[j] < 0;
        else wrong |= j + 1 < $J && S[j + 1] < S[j];
    }
    if (wrong) ${name}_order(apart, order);
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

# The eigenvectors of a matrix in the place of the values, by Jacobi's method, turned towards a guide.
BLOCK = """\
static inline void ${name}_rotate(double *a, double *b, double c, double re, double im)
{
    const double a0 = a[0], a1 = a[1], b0 = b[0], b1 = b[1];
    a[0] = c * a0 + re * b0 + im * b1;
    a[1] = c * a1 + re * b1 - im * b0;
    b[0] = c * b0 - re * a0 + im * a1;
    b[1] = c * b1 - re * a1 - im * a0;
}
static inline void ${name}_sort(const ${name}_real *S, const ${name}_real *U, const ${name}_real *Vh,
                                const ${name}_real *guide, ${name}_real *values, ${name}_real *left,
                                ${name}_real *right)
{
    double M[$J][$J][2], P[$J][$J][2], s[$J], most = 0;
    int order[$J];
    for (int i = 0; i < $J; i++)
        for (int j = 0; j < $J; j++) {
            M[i][j][0] = ((double)S[(i * $J + j) * $pair] + S[(j * $J + i) * $pair]) / 2;
            M[i][j][1] = $pair > 1 ? ((double)S[(i * $J + j) * 2 + 1] - S[(j * $J + i) * 2 + 1]) / 2 : 0;
            P[i][j][0] = i == j;
            P[i][j][1] = 0;
        }
    for (int sweep = 0; sweep < 30; sweep++)
        for (int p = 0; p < $J; p++)
            for (int q = p + 1; q < $J; q++) {
                const double re = M[p][q][0], im = M[p][q][1], size = hypot(re, im);
                const double half = (M[p][p][0] - M[q][q][0]) / 2;
                const double t = (half < 0 ? -size : size) / (fabs(half) + hypot(half, size)), c = 1 / sqrt(1 + t * t);
                if (!(size > 0)) continue;
                for (int i = 0; i < $J; i++) {
                    ${name}_rotate(M[i][p], M[i][q], c, t * c * re / size, t * c * im / size);
                    ${name}_rotate(P[i][p], P[i][q], c, t * c * re / size, t * c * im / size);
                }
                for (int i = 0; i < $J; i++) ${name}_rotate(M[p][i], M[q][i], c, t * c * re / size, -t * c * im / size);
                M[p][q][0] = M[p][q][1] = M[q][p][0] = M[q][p][1] = 0;
            }
    for (int j = 0; j < $J; j++) s[j] = M[j][j][0];
    ${name}_order(s, order);
    for (int j = 0; j < $k; j++) if (fabs(s[order[j]]) > most) most = fabs(s[order[j]]);
    for (int j = 0; j < $k; j++) {
        const int own = order[j];
        const double sign = $signed && s[own] + $equal * most < 0 ? -1 : 1;
        double re = 0, im = 0;
        for (int i = 0; i < $J; i++) {
            const double a = guide ? guide[(i * $k + j) * $pair] : i == j;
            const double b = guide && $pair > 1 ? guide[(i * $k + j) * 2 + 1] : 0;
            re += P[i][own][0] * a + P[i][own][1] * b;
            im += P[i][own][0] * b - P[i][own][1] * a;
        }
        const double size = hypot(re, im), x = size > 0 ? re / size : 1, y = size > 0 ? im / size : 0;
        values[j] = (${name}_real)($signed ? fabs(s[own]) : s[own]);
        for (int i = 0; i < $J; i++) {
            const double a = P[i][own][0], b = P[i][own][1];
            P[i][own][0] = a * x - b * y;
            P[i][own][1] = a * y + b * x;
        }
        for (int i = 0; i < $m; i++) {
            double sum[2] = {0, 0};
            for (int l = 0; l < $J; l++) {
                const ${name}_real *u = U + (i * $J + l) * $pair;
                sum[0] += u[0] * P[l][own][0] - ($pair > 1 ? u[$pair - 1] * P[l][own][1] : 0);
                sum[1] += u[0] * P[l][own][1] + ($pair > 1 ? u[$pair - 1] * P[l][own][0] : 0);
            }
            for (int c = 0; c < $pair; c++) left[(i * $k + j) * $pair + c] = (${name}_real)(sign * sum[c]);
        }
        for (int i = 0; right && i < $n; i++) {
            double sum[2] = {0, 0};
            for (int l = 0; l < $J; l++) {
                const ${name}_real *v = Vh + (l * $n + i) * $pair;
                sum[0] += v[0] * P[l][own][0] + ($pair > 1 ? v[$pair - 1] * P[l][own][1] : 0);
                sum[1] += -v[0] * P[l][own][1] + ($pair > 1 ? v[$pair - 1] * P[l][own][0] : 0);
            }
            for (int c = 0; c < $pair; c++) right[(j * $n + i) * $pair + c] = (${name}_real)sum[c];
        }
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
