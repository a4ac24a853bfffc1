// The calculator of operations/capacity.md; the same formulas stand in the table below it.
document.addEventListener('DOMContentLoaded', () => {
  const place = document.getElementById('capacity');
  if (!place) return;
  const MI = 1024 * 1024;
  const asked = [
    ['records', 'records in memory', 1000000],
    ['own', 'bytes of a record: 43, and its own fields', 60],
    ['states', 'distinct shared states', 1000],
    ['state', 'bytes of a shared state as JSON', 900],
  ];
  const form = document.createElement('form');
  form.className = 'calculator';
  const fields = {};
  for (const [name, text, value] of asked) {
    const label = document.createElement('label');
    const input = Object.assign(document.createElement('input'), { type: 'number', min: 0, value });
    label.append(`${text} `, input);
    form.append(label);
    fields[name] = input;
  }
  const answer = document.createElement('output');
  form.append(answer);
  const compute = () => {
    const of = (name) => Number(fields[name].value) || 0;
    const max = (of('records') * of('own') + of('states') * (of('state') + 130)) / MI;
    const limit = (max + 64) / 0.85 / 0.625;
    answer.textContent = `maxBytes: ${Math.ceil(max)}Mi, limits.memory: ${Math.ceil(limit)}Mi`;
  };
  form.addEventListener('input', compute);
  form.addEventListener('submit', (event) => event.preventDefault());
  compute();
  place.replaceChildren(form);
});
