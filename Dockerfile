# docker build -t segtrain . && docker run --rm -it --gpus all --shm-size=8g -v "$PWD:/work" segtrain train data=photos/
FROM python:3.12-slim

RUN useradd --create-home segtrain && mkdir /work && chown segtrain /work
COPY pyproject.toml README.md LICENSE /source/
COPY conf /source/conf
COPY segtrain /source/segtrain
COPY hydra_plugins /source/hydra_plugins
RUN pip install --no-cache-dir '/source[export]' && rm -rf /source
USER segtrain
WORKDIR /work
ENTRYPOINT ["segtrain"]
CMD ["--help"]
