# %% [markdown]
# # inside_a_region

# %%
print(1)
